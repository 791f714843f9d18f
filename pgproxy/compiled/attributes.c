/* Attributes where they are no slots of a class that is known, or are not set: as anybody reads and writes them. */

#include "twin.h"

bool
is_heir(State *state, PyTypeObject *type, enum attribute which)
{
    PyTypeObject *known = state->types[which];
    if (known == NULL || !PyType_IsSubtype(type, known)) {
        return false;
    }
    Py_XSETREF(state->heirs[which], (PyTypeObject *)Py_NewRef(type));
    return true;
}

PyObject *
get_by_name(State *state, PyObject *object, enum attribute which)
{
    return PyObject_GetAttr(object, state->names[which]);
}

int
set_by_name(State *state, PyObject *object, enum attribute which, PyObject *value)
{
    return PyObject_SetAttr(object, state->names[which], value);
}

int
set_number_anew(State *state, PyObject *object, enum attribute which, Py_ssize_t value)
{
    PyObject *number = PyLong_FromSsize_t(value);
    if (number == NULL) {
        return -1;
    }
    int done = set(state, object, which, number);
    Py_DECREF(number);
    return done;
}

int
get_number_by_name(State *state, PyObject *object, enum attribute which, Py_ssize_t *value)
{
    PyObject *number = get(state, object, which);
    if (number == NULL) {
        return -1;
    }
    *value = PyLong_AsSsize_t(number);
    Py_DECREF(number);
    return *value == -1 && PyErr_Occurred() ? -1 : 0;
}

int
is_true_by_name(State *state, PyObject *object, enum attribute which)
{
    PyObject *value = get(state, object, which);
    if (value == NULL) {
        return -1;
    }
    int truth = PyObject_IsTrue(value);
    Py_DECREF(value);
    return truth;
}

int
is_by_name(State *state, PyObject *object, enum attribute which, const PyObject *what)
{
    PyObject *value = get(state, object, which);
    if (value == NULL) {
        return -1;
    }
    Py_DECREF(value);
    return value == what;
}

int
is_empty_by_name(State *state, PyObject *object, enum attribute which)
{
    int some = is_true_by_name(state, object, which);
    return some < 0 ? -1 : !some;
}
