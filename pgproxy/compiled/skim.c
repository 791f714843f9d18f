/* wire/skim.py: cuts what came into a run and frames. */

#include "twin.h"

/*
 * Cut what came; nothing is entered yet. Gives 1; 0 where it is left to Python, as it is malformed or has too
 * many frames; -1 with an exception.
 */
int
cut(State *state, PyObject *skimmer, PyObject *data, Skimmed *skimmed)
{
    PyObject *held = NULL, *direction = NULL, *table = NULL, *whole = NULL;
    skimmed->run = skimmed->held = NULL;
    skimmed->count = 0;
    if (!PyBytes_CheckExact(data)) {
        return 0;
    }
    NEED(held, get(state, skimmer, Skimmer__held));
    NEED(direction, get(state, skimmer, Skimmer__direction));
    NEED(table, get(state, direction, Direction__table));
    if (!PyBytes_CheckExact(held) || !PyBytes_CheckExact(table)
        || PyBytes_GET_SIZE(table) != (Py_ssize_t)(512 * sizeof(int32_t))) {
        goto seldom;
    }
    if (PyBytes_GET_SIZE(held)) {
        whole = Py_NewRef(held);
        PyBytes_Concat(&whole, data);
        if (whole == NULL) {
            goto failed;
        }
    } else {
        whole = Py_NewRef(data);
    }
    const int32_t *limits = (const int32_t *)PyBytes_AS_STRING(table);
    const int32_t *looks = limits + 256;
    const unsigned char *bytes = (const unsigned char *)PyBytes_AS_STRING(whole);
    Py_ssize_t end = PyBytes_GET_SIZE(whole), position, kept = -1;
    DO(get_number(state, skimmer, Skimmer__left, &position));
    while (position < end) {
        int tag = bytes[position];
        if (end - position < HEADER) {
            if (!limits[tag]) {
                goto seldom;
            }
            kept = position;
            break;
        }
        uint32_t length = word((const char *)bytes + position + 1);
        if (length < 4 || length > (uint32_t)limits[tag]) {
            goto seldom;
        }
        Py_ssize_t following = position + 1 + (Py_ssize_t)length;
        int32_t look = looks[tag];
        if (look) {
            Py_ssize_t seen = length < (uint32_t)look ? following : position + look;
            if (seen > end) {
                kept = position;
                break;
            }
            if (skimmed->count == MOST_FRAMES) {
                goto seldom;
            }
            skimmed->tags[skimmed->count] = (char)tag;
            skimmed->frames[skimmed->count++] = (Frame){position, seen};
        }
        position = following;
    }
    if (kept >= 0) {
        NEED(skimmed->run, PyBytes_FromStringAndSize((const char *)bytes, kept));
        NEED(skimmed->held, PyBytes_FromStringAndSize((const char *)bytes + kept, end - kept));
        skimmed->left = 0;
    } else {
        skimmed->run = Py_NewRef(whole);
        skimmed->held = Py_NewRef(state->empty);
        skimmed->left = position - end;
    }
    Py_DECREF(held);
    Py_DECREF(direction);
    Py_DECREF(table);
    Py_DECREF(whole);
    return 1;
failed:
seldom:
    Py_XDECREF(held);
    Py_XDECREF(direction);
    Py_XDECREF(table);
    Py_XDECREF(whole);
    Py_CLEAR(skimmed->run);
    Py_CLEAR(skimmed->held);
    return PyErr_Occurred() ? -1 : 0;
}

void
forget(Skimmed *skimmed)
{
    Py_CLEAR(skimmed->run);
    Py_CLEAR(skimmed->held);
}

int
enter(State *state, PyObject *skimmer, const Skimmed *skimmed)
{
    if (set(state, skimmer, Skimmer__held, skimmed->held) < 0) {
        return -1;
    }
    return set_number(state, skimmer, Skimmer__left, skimmed->left);
}

PyObject *
listed(const Skimmed *skimmed)
{
    PyObject *list = PyList_New(skimmed->count);
    for (Py_ssize_t index = 0; list != NULL && index < skimmed->count; index++) {
        const Frame *frame = &skimmed->frames[index];
        PyObject *item = PyTuple_New(3);
        if (item == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, index, item);
        PyObject *parts[] = {
            PyLong_FromLong((unsigned char)skimmed->tags[index]),
            PyLong_FromSsize_t(frame->start),
            PyLong_FromSsize_t(frame->stop),
        };
        for (Py_ssize_t part = 0; part < 3; part++) {
            PyTuple_SET_ITEM(item, part, parts[part]);
        }
        if (parts[0] == NULL || parts[1] == NULL || parts[2] == NULL) {
            Py_CLEAR(list);
        }
    }
    return list;
}

PyObject *
Skimmer_feed(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    Skimmed skimmed;
    if (count != 2) {
        return in_python(state, Skimmer__feed, arguments, count);
    }
    int done = cut(state, arguments[0], arguments[1], &skimmed);
    if (done <= 0) {
        return done < 0 ? NULL : in_python(state, Skimmer__feed, arguments, count);
    }
    PyObject *result = NULL, *frames = listed(&skimmed);
    if (frames != NULL && enter(state, arguments[0], &skimmed) == 0) {
        result = PyTuple_Pack(2, skimmed.run, frames);
    }
    Py_XDECREF(frames);
    forget(&skimmed);
    return result;
}
