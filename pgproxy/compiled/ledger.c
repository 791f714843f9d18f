/* session/ledger.py: what a server owes. */

#include "twin.h"

/* What stands in `owed`, at most two of it; gives how many there are. */
Py_ssize_t
owed(State *state, PyObject *ledger, PyObject **queue, Py_ssize_t *first, Py_ssize_t *second)
{
    *first = *second = -1;
    *queue = get(state, ledger, Ledger__owed);
    if (*queue == NULL) {
        return -1;
    }
    if (!PyList_CheckExact(*queue)) {
        PyErr_SetString(PyExc_TypeError, "a ledger has a list");
        return -1;
    }
    Py_ssize_t count = PyList_GET_SIZE(*queue);
    for (Py_ssize_t at = 0; at < count && at < 2; at++) {
        if (!small(PyList_GET_ITEM(*queue, at), at ? second : first)) {
            PyErr_SetString(PyExc_ValueError, "what is owed is a tag");
            return -1;
        }
    }
    return count;
}

int
is_status(State *state, PyObject *ledger, int status)
{
    Py_ssize_t number;
    return get_number(state, ledger, Ledger__status, &number) < 0 ? -1 : number == status;
}

/* Enter a message that is owed a ReadyForQuery. */
int
ask(State *state, PyObject *ledger, PyObject *queue, int tag)
{
    PyObject *number = PyLong_FromLong(tag);
    if (number == NULL) {
        return -1;
    }
    int done = PyList_Append(queue, number);
    Py_DECREF(number);
    if (done < 0 || add_one(state, ledger, Ledger__asked) < 0) {
        return -1;
    }
    return set_number(state, ledger, Ledger__ends, 0);
}

/* Enter a ReadyForQuery that is owed. */
int
ready(State *state, PyObject *ledger, PyObject *queue, int status)
{
    /* With 'I' the transaction has ended. */
    if (status == 'I' && add_one(state, ledger, Ledger__transaction) < 0) {
        return -1;
    }
    if (drop_first(queue) < 0 || add_one(state, ledger, Ledger__answered) < 0
        || set_number(state, ledger, Ledger__ends, 0) < 0) {
        return -1;
    }
    return set_number(state, ledger, Ledger__status, status);
}

/* Whether a server that has no more to say owes nothing else: `Ledger.settled`. */
int
is_settled(State *state, PyObject *ledger)
{
    UNLESS_SELDOM(is_true(state, ledger, Ledger__batch_open));
    UNLESS_SELDOM(is_true(state, ledger, Ledger__copying));
    UNLESS_SELDOM(is_true(state, ledger, Ledger__irregular));
    UNLESS_SELDOM(is_true(state, ledger, Ledger__streaming));
    return 1;
seldom:
    return 0;
failed:
    return -1;
}
