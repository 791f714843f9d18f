/* The module: pgproxy/twin.py uses it. */

#include "twin.h"

#define PAIR(class, name) {#class, #name},
static const struct {
    const char *class, *name;
} attributes[] = {ATTRIBUTES(PAIR)};

#define CALL_TEXT(name) #name,
static const char *const calls[] = {CALLS(CALL_TEXT)};

typedef PyObject *(*Method)(PyObject *, PyObject *const *, Py_ssize_t);
#define DEFINE(class, name) {#name, (PyCFunction)(void (*)(void))class##_##name, METH_FASTCALL, NULL},
static PyMethodDef methods[] = {METHODS(DEFINE)};
#define CLASS(class, name) #class,
static const char *const classes[] = {METHODS(CLASS)};

/* Find where an object of a class keeps an attribute of its own. */
static int
find_slot(State *state, PyTypeObject *type, size_t which)
{
    PyObject *found = PyDict_GetItemWithError(type->tp_dict, state->names[which]);
    if (found == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    if (Py_TYPE(found) == &PyMemberDescr_Type) {
        PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;
        if (member->type == T_OBJECT_EX && !(member->flags & READONLY)) {
            Py_XSETREF(state->types[which], (PyTypeObject *)Py_NewRef(type));
            state->offsets[which] = member->offset;
        }
    }
    return 0;
}

static int
replace(State *state, PyObject *module, PyTypeObject *type, size_t which)
{
    PyObject *own = PyObject_GetAttrString((PyObject *)type, methods[which].ml_name);
    if (own == NULL) {
        return -1;
    }
    Py_XSETREF(state->in_python[which], own);
    PyObject *function = PyCFunction_NewEx(&methods[which], module, NULL);
    Py_XSETREF(state->own[which], Py_XNewRef(function));
    PyObject *method = function == NULL ? NULL : PyInstanceMethod_New(function);
    int done = method == NULL
        ? -1
        : PyObject_SetAttrString((PyObject *)type, methods[which].ml_name, method);
    Py_XDECREF(function);
    Py_XDECREF(method);
    return done;
}

static PyObject *
quicken(PyObject *module, PyObject *class)
{
    State *state = state_of(module);
    if (!PyType_Check(class)) {
        PyErr_SetString(PyExc_TypeError, "only a class can be quickened");
        return NULL;
    }
    PyTypeObject *type = (PyTypeObject *)class;
    const char *name = type->tp_name;
    for (size_t which = 0; which < ATTRIBUTES_END; which++) {
        if (strcmp(attributes[which].class, name) == 0 && find_slot(state, type, which) < 0) {
            return NULL;
        }
    }
    for (size_t which = 0; which < METHODS_END; which++) {
        if (strcmp(classes[which], name) == 0 && replace(state, module, type, which) < 0) {
            return NULL;
        }
    }
    if (strcmp(name, "Stream") == 0) {
        Py_XSETREF(state->stream, (PyTypeObject *)Py_NewRef(class));
    } else if (strcmp(name, "StreamPort") == 0) {
        Py_XSETREF(state->port, (PyTypeObject *)Py_NewRef(class));
    } else if (strcmp(name, "Following") == 0) {
        Py_XSETREF(state->following, (PyTypeObject *)Py_NewRef(class));
    }
    return Py_NewRef(class);
}

/* Write the tags that are quiet as numbers. */
static int
know_tags(State *state)
{
    PyObject *iterator = PyObject_GetIter(state->quiet), *tag;
    state->tags_end = 0;
    while (iterator != NULL && (tag = PyIter_Next(iterator)) != NULL) {
        if (!PyBytes_Check(tag) || PyBytes_GET_SIZE(tag) != TAG_LOOK || state->tags_end == MOST_QUIET) {
            PyErr_SetString(PyExc_ValueError, "quiet tags are known by three bytes, and there are not so many");
        } else {
            state->tags[state->tags_end++] = tag_number(PyBytes_AS_STRING(tag));
        }
        Py_DECREF(tag);
        if (PyErr_Occurred()) {
            break;
        }
    }
    Py_XDECREF(iterator);
    return PyErr_Occurred() ? -1 : 0;
}

static int
know_bounds(State *state, PyObject *bounds)
{
    state->bounds_end = 0;
    if (PyTuple_GET_SIZE(bounds) > MOST_BOUNDS) {
        PyErr_SetString(PyExc_ValueError, "a histogram has not so many ranges");
        return -1;
    }
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(bounds); at++) {
        state->bounds[at] = PyFloat_AsDouble(PyTuple_GET_ITEM(bounds, at));
        if (PyErr_Occurred()) {
            return -1;
        }
    }
    state->bounds_end = PyTuple_GET_SIZE(bounds);
    return 0;
}

static PyObject *
know(PyObject *module, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"words", "quiet", "from_server", "harmless", "turns", "idle", "linked", "bounds", NULL};
    State *state = state_of(module);
    PyObject *words = NULL, *quiet = NULL, *from_server = NULL, *harmless = NULL, *turns = NULL;
    PyObject *idle = NULL, *linked = NULL, *bounds = NULL;
    if (!PyArg_ParseTupleAndKeywords(
            arguments, keywords, "|$O!O!OOOOOO!", names, &PyFrozenSet_Type, &words, &PyFrozenSet_Type, &quiet,
            &from_server, &harmless, &turns, &idle, &linked, &PyTuple_Type, &bounds
        )) {
        return NULL;
    }
    PyObject *const given[] = {words, quiet, from_server, harmless, turns, idle, linked};
    PyObject **const places[] = {
        &state->words, &state->quiet, &state->from_server, &state->harmless, &state->turns,
        &state->idle, &state->linked,
    };
    for (size_t at = 0; at < Py_ARRAY_LENGTH(given); at++) {
        if (given[at] != NULL) {
            PyObject *old = *places[at];
            *places[at] = Py_NewRef(given[at]);
            Py_XDECREF(old);
        }
    }
    if (words != NULL) {
        memset(state->judged, 0, sizeof state->judged);
    }
    if ((quiet != NULL && know_tags(state) < 0) || (bounds != NULL && know_bounds(state, bounds) < 0)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Tell tests what is here. */
static PyObject *
look(PyObject *module, PyObject *unused)
{
    State *state = state_of(module);
    PyObject *unknown = PyList_New(0), *replaced = PyList_New(0), *result = NULL;
    if (unknown == NULL || replaced == NULL) {
        goto failed;
    }
    for (size_t which = 0; which < ATTRIBUTES_END; which++) {
        if (state->types[which] == NULL) {
            PyObject *name = PyUnicode_FromFormat("%s.%s", attributes[which].class, attributes[which].name);
            int done = name == NULL ? -1 : PyList_Append(unknown, name);
            Py_XDECREF(name);
            DO(done);
        }
    }
    for (size_t which = 0; which < METHODS_END; which++) {
        PyObject *one = Py_BuildValue(
            "(ssO)", classes[which], methods[which].ml_name,
            state->in_python[which] == NULL ? Py_None : state->in_python[which]
        );
        int done = one == NULL ? -1 : PyList_Append(replaced, one);
        Py_XDECREF(one);
        DO(done);
    }
    result = Py_BuildValue(
        "{sOsOsksksOsisisisisisisisisisi}", "unknown", unknown, "replaced", replaced, "plain", state->plain, "gathered",
        state->outbox.gathered, "ring", ring_is_open(&state->ring) ? Py_True : Py_False, "HEADER",
        HEADER, "READ_SIZE", READ_SIZE, "FULL_RECORD", FULL_RECORD, "MOST_OWED", MOST_OWED, "CACHED_TEXT",
        CACHED_TEXT, "TEXT_LOOK", TEXT_LOOK, "LONGEST_NAME", LONGEST_NAME, "MOST_CALLED", MOST_CALLED,
        "MOST_KEPT", MOST_KEPT, "LONGEST_PLAIN", LONGEST_PLAIN
    );
failed:
    Py_XDECREF(unknown);
    Py_XDECREF(replaced);
    return result;
}

/* A fork has its parent's ring: what it puts into it, the parent would send. */
static PyObject *
leave_ring(PyObject *module, PyObject *unused)
{
    State *state = state_of(module);
    ring_close(&state->ring);
    state->ring.state = RING_UNTRIED;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"look", look, METH_NOARGS, "Tell tests what is here."},
    {"quicken", quicken, METH_O, "Give a class the methods that are here; learn where its slots are."},
    {"know", (PyCFunction)(void (*)(void))know, METH_VARARGS | METH_KEYWORDS, "Take what is compared with."},
    {"leave_ring", leave_ring, METH_NOARGS, "Have no io_uring any more; another is made when it is needed."},
    {"quick", quick_says, METH_O, "Say of a text: 0: nothing, 1: HARMLESS, 2: WRITES."},
    {NULL, NULL, 0, NULL},
};

static int
begin(PyObject *module)
{
    State *state = state_of(module);
    for (size_t which = 0; which < ATTRIBUTES_END; which++) {
        if ((state->names[which] = PyUnicode_InternFromString(attributes[which].name)) == NULL) {
            return -1;
        }
    }
    for (size_t which = 0; which < CALLS_END; which++) {
        if ((state->calls[which] = PyUnicode_InternFromString(calls[which])) == NULL) {
            return -1;
        }
    }
    int done = -1;
    NEED(state->empty, PyBytes_FromStringAndSize(NULL, 0));
    NEED(state->zero, PyFloat_FromDouble(0.0));
    done = 0;
failed:
    return done;
}

static int
traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = state_of(module);
    for (size_t which = 0; which < ATTRIBUTES_END; which++) {
        Py_VISIT(state->types[which]);
        Py_VISIT(state->heirs[which]);
    }
    for (size_t which = 0; which < METHODS_END; which++) {
        Py_VISIT(state->in_python[which]);
        Py_VISIT(state->own[which]);
    }
    Py_VISIT(state->stream);
    Py_VISIT(state->port);
    Py_VISIT(state->following);
    Py_VISIT(state->harmless);
    Py_VISIT(state->turns);
    Py_VISIT(state->words);
    Py_VISIT(state->quiet);
    Py_VISIT(state->from_server);
    Py_VISIT(state->idle);
    Py_VISIT(state->linked);
    return 0;
}

static int
clear(PyObject *module)
{
    State *state = state_of(module);
    for (size_t which = 0; which < ATTRIBUTES_END; which++) {
        Py_CLEAR(state->names[which]);
        Py_CLEAR(state->types[which]);
        Py_CLEAR(state->heirs[which]);
    }
    for (size_t which = 0; which < METHODS_END; which++) {
        Py_CLEAR(state->in_python[which]);
        Py_CLEAR(state->own[which]);
    }
    for (size_t which = 0; which < CALLS_END; which++) {
        Py_CLEAR(state->calls[which]);
    }
    Py_CLEAR(state->stream);
    Py_CLEAR(state->port);
    Py_CLEAR(state->following);
    Py_CLEAR(state->empty);
    Py_CLEAR(state->zero);
    Py_CLEAR(state->harmless);
    Py_CLEAR(state->turns);
    Py_CLEAR(state->words);
    Py_CLEAR(state->quiet);
    Py_CLEAR(state->from_server);
    Py_CLEAR(state->idle);
    Py_CLEAR(state->linked);
    return 0;
}

static void
end(void *module)
{
    ring_close(&state_of(module)->ring);
    clear((PyObject *)module);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, begin}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pgproxy._twin",
    .m_doc = "The way of what nearly everybody says, compiled.",
    .m_size = sizeof(State),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = end,
};

PyMODINIT_FUNC
PyInit__twin(void)
{
    return PyModuleDef_Init(&definition);
}
