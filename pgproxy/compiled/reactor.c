/* link/reactor.py: waits for events, and deals with them. */

#include "twin.h"

#include <errno.h>
#include <sys/epoll.h>
#include <time.h>

/* Seconds: epoll's milliseconds have to fit into an int. */
#define LONGEST_WAIT 2147483.0
/* Seconds that go by, at most, before the reactor looks at its clock: what was put forward in time is found then. */
#define LONGEST_TURN 0.1
/* The same where methods in Python have been called, which may have done so. */
#define LONGEST_WITH_PYTHON 0.01

/* Have the exception that is set end a connection: we have made a mistake with it. */
int
broke(State *state, PyObject *reactor, PyObject *selectable)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(error, traceback);
    }
    PyObject *all[] = {reactor, selectable, error};
    int done = ignore(call_python(state, call__broke, all, 3));
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return done;
}

/* Deal with one event; 1 if it was something else than that one of our own streams can be read, -1 with an exception. */
static int
dispatch(State *state, PyObject *reactor, PyObject *selectable, PyObject *number, uint32_t event)
{
    if (event != EPOLLIN || (Py_TYPE(selectable) != state->stream && Py_TYPE(selectable) != state->port)) {
        PyObject *events = PyLong_FromUnsignedLong(event);
        if (events == NULL) {
            return -1;
        }
        PyObject *all[] = {reactor, selectable, number, events};
        int done = ignore(call_python(state, call__dispatch, all, 4));
        Py_DECREF(events);
        return done < 0 ? -1 : 1;
    }
    PyObject *read = get(state, selectable, Stream__doRead);
    if (read == NULL) {
        return -1;
    }
    PyObject *stream, *why;
    if ((stream = self_of(state, read, Stream___read_plain)) != NULL) {
        why = read_plain(state, stream);
    } else if ((stream = self_of(state, read, Stream___read_tls)) != NULL) {
        why = read_tls(state, stream);
    } else {
        why = apply(state, read, NULL, 0);
    }
    Py_DECREF(read);
    if (why == Py_None) {
        Py_DECREF(why);
        return 0;
    }
    if (why == NULL) {
        return broke(state, reactor, selectable);
    }
    PyObject *all[] = {reactor, selectable, why, Py_True};
    int done = ignore(call_python(state, call__disconnectSelectable, all, 4));
    Py_DECREF(why);
    return done;
}

/* A time that is so many seconds from now. */
static struct timespec
from_now(double seconds)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_nsec += (long)(seconds * 1e9);
    return time;
}

/* Whether a time is before another; their nanoseconds may be more than a second. */
static bool
is_before(const struct timespec *one, const struct timespec *other)
{
    return (one->tv_sec - other->tv_sec) * 1000000000LL + (one->tv_nsec - other->tv_nsec) < 0;
}

/* Milliseconds that are left until a time, rounded up. */
static int
milliseconds_until(const struct timespec *end)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double left = (double)(end->tv_sec - now.tv_sec) * 1e3 + (double)(end->tv_nsec - now.tv_nsec) / 1e6;
    return left <= 0 ? 0 : (int)left + 1;
}

/* `selectables[number]`; NULL without an exception where there is none. */
static PyObject *
find(PyObject *selectables, PyObject *number)
{
    if (PyDict_CheckExact(selectables)) {
        return Py_XNewRef(PyDict_GetItemWithError(selectables, number));
    }
    PyObject *found = PyObject_GetItem(selectables, number);
    if (found == NULL && PyErr_ExceptionMatches(PyExc_KeyError)) {
        PyErr_Clear();
    }
    return found;
}

/* Deal with events; 1 if there was something else among them, see `dispatch`, -1 with an exception. */
static int
deal_with(State *state, PyObject *reactor, PyObject *selectables, const struct epoll_event *events, int many)
{
    int others = 0;
    for (int at = 0; at < many; at++) {
        PyObject *number = PyLong_FromLong(events[at].data.fd);
        PyObject *selectable = number == NULL ? NULL : find(selectables, number);
        int done = 0;
        if (selectable != NULL) {
            done = dispatch(state, reactor, selectable, number, events[at].events);
            Py_DECREF(selectable);
        } else if (PyErr_Occurred()) {
            done = -1;
        }
        /* Else it was closed by what an earlier event has led to. */
        Py_XDECREF(number);
        if (done < 0) {
            return -1;
        }
        others |= done;
    }
    return others;
}

/* The same, with what is sent gathered; the exception that is set is kept. */
static int
deal_with_many(State *state, PyObject *reactor, PyObject *selectables, const struct epoll_event *events, int many)
{
    PyObject *type, *error, *traceback;
    Outbox *outbox = &state->outbox;
    outbox->reactor = reactor;
    outbox->open = true;
    int done = deal_with(state, reactor, selectables, events, many);
    outbox->open = false;
    PyErr_Fetch(&type, &error, &traceback);
    if (outbox->count && empty_outbox(state) < 0) {
        done = -1;
    }
    if (type != NULL) {
        PyErr_Restore(type, error, traceback);
    }
    return done;
}

/*
 * Whether no other thread of Python's is there: none is begun while we wait, so nobody wants the GIL. (A thread
 * that C code has begun, and that wants it, would wait until the next event, or call that is due: no dependency has one.)
 */
static bool
is_alone(void)
{
    PyThreadState *own = PyThreadState_Get();
    return PyInterpreterState_ThreadHead(PyThreadState_GetInterpreter(own)) == own && PyThreadState_Next(own) == NULL;
}

/* What a turn was about. */
enum { ONLY_PLAIN, ONLY_STREAMS, ANYTHING };

/* Wait for events and deal with them; ANYTHING as well where none came, -1 with an exception. */
static int
turn(State *state, PyObject *reactor, PyObject *selectables, int descriptor, int timeout)
{
    struct epoll_event events[EVENTS];
    unsigned long before = state->plain;
    int many;
    if (is_alone()) {
        many = epoll_wait(descriptor, events, EVENTS, timeout);
    } else {
        Py_BEGIN_ALLOW_THREADS
        many = epoll_wait(descriptor, events, EVENTS, timeout);
        Py_END_ALLOW_THREADS
    }
    if (many < 0) {
        if (errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        return PyErr_CheckSignals() < 0 ? -1 : ANYTHING;
    }
    int others = many > 1 && ring_is_open(&state->ring)
        ? deal_with_many(state, reactor, selectables, events, many)
        : deal_with(state, reactor, selectables, events, many);
    if (others) {
        return others < 0 ? -1 : ANYTHING;
    }
    return !many ? ANYTHING : state->plain - before == (unsigned long)many ? ONLY_PLAIN : ONLY_STREAMS;
}

PyObject *
DirectReactor_doPoll(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    PyObject *reactor, *poller = NULL, *selectables = NULL, *number = NULL, *calls = NULL;
    double seconds = -1;
    int done = -1;
    if (count != 2) {
        return in_python(state, DirectReactor__doPoll, arguments, count);
    }
    reactor = arguments[0];
    if (arguments[1] != Py_None) {
        seconds = PyFloat_AsDouble(arguments[1]);
        if (seconds == -1.0 && PyErr_Occurred()) {
            return NULL;
        }
        seconds = seconds < 0 ? 0 : seconds > LONGEST_WAIT ? LONGEST_WAIT : seconds;
    }
    /* Rounded up: who is woken early finds nothing to do. */
    int left = seconds < 0 ? -1 : (int)(seconds * 1000) + (seconds * 1000 > (int)(seconds * 1000));
    double longest = seconds < 0 || seconds > LONGEST_TURN ? LONGEST_TURN : seconds;
    struct timespec end = from_now(longest);
    NEED(poller, get(state, reactor, DirectReactor___poller));
    NEED(selectables, get(state, reactor, DirectReactor___selectables));
    NEED(number, PyObject_CallMethodNoArgs(poller, state->calls[call_fileno]));
    int descriptor = (int)PyLong_AsLong(number);
    if (descriptor == -1 && PyErr_Occurred()) {
        goto failed;
    }
    /* As long as only our streams had something to read nothing has become due, unless it was scheduled just now. */
    bool python = false;
    int about;
    /* What was scheduled since the reactor has last looked: it then begins with another list. */
    NEED(calls, get(state, reactor, DirectReactor___newTimedCalls));
    do {
        DO(about = turn(state, reactor, selectables, descriptor, left));
        if (about == ANYTHING) {
            break;
        }
        if (about == ONLY_STREAMS) {
            UNLESS_SELDOM(is_true(state, reactor, DirectReactor___justStopped));
            Py_DECREF(calls);
            NEED(calls, get(state, reactor, DirectReactor___newTimedCalls));
            if (!python) {
                struct timespec sooner = from_now(LONGEST_WITH_PYTHON);
                end = is_before(&sooner, &end) ? sooner : end;
                python = true;
            }
        }
    } while (PyList_CheckExact(calls) && !PyList_GET_SIZE(calls) && (left = milliseconds_until(&end)));
seldom:
    done = 0;
failed:
    Py_XDECREF(poller);
    Py_XDECREF(selectables);
    Py_XDECREF(number);
    Py_XDECREF(calls);
    return done < 0 ? NULL : Py_NewRef(Py_None);
}
