/* link/transport.py, link/records.py: reads and writes a socket. */

#include "twin.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * recv(): where a process has threads, the C library's is a point at which a thread may be cancelled, which costs two
 * atomic operations each time. Nobody cancels ours.
 */
static inline ssize_t
receive(int number, char *buffer, size_t size)
{
    return syscall(SYS_recvfrom, number, buffer, size, MSG_DONTWAIT, NULL, NULL);
}

/* `protocol.dataReceived(data)`; what our own do is known. */
static int
deliver(State *state, PyObject *protocol, PyObject *data)
{
    PyObject *receive, *splice, *done;
    if (Py_TYPE(protocol) == state->types[ServerConnection__receive]) {
        receive = get(state, protocol, ServerConnection__receive);
    } else if (Py_TYPE(protocol) == state->types[ClientConnection__receive]) {
        receive = get(state, protocol, ClientConnection__receive);
    } else {
        return ignore(call_python_with(state, call_dataReceived, protocol, data));
    }
    if (receive == NULL) {
        return -1;
    }
    if ((splice = self_of(state, receive, Splice___from_server)) != NULL) {
        done = from_server(state, splice, data);
    } else if ((splice = self_of(state, receive, Splice__from_client)) != NULL) {
        done = from_client(state, splice, data);
    } else {
        done = apply(state, receive, &data, 1);
    }
    Py_DECREF(receive);
    return ignore(done);
}

/* Say why nothing was read, as a method that reads does. */
SELDOM_CALLED static PyObject *
read_nothing(State *state, PyObject *stream, ssize_t size)
{
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        Py_RETURN_NONE;
    }
    PyObject *lost = PyBool_FromLong(size < 0);
    PyObject *why = call_python_with(state, call__connection_ended, stream, lost);
    Py_DECREF(lost);
    return why;
}

PyObject *
read_plain(State *state, PyObject *stream)
{
    /* One call reads at a time, and what it has read is copied before anything else is called. */
    char buffer[READ_SIZE];
    Py_ssize_t number;
    if (get_number(state, stream, Stream___number, &number) < 0) {
        return NULL;
    }
    ssize_t size = receive((int)number, buffer, sizeof buffer);
    if (size <= 0) {
        return read_nothing(state, stream, size);
    }
    PyObject *data = PyBytes_FromStringAndSize(buffer, size);
    if (data == NULL) {
        return NULL;
    }
    PyObject *protocol = get(state, stream, Stream___protocol);
    int done = protocol == NULL ? -1 : deliver(state, protocol, data);
    Py_XDECREF(protocol);
    Py_DECREF(data);
    return done < 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *
Stream__read_plain(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    return count == 1 ? read_plain(state, arguments[0])
                      : in_python(state, Stream___read_plain, arguments, count);
}

/* Whether a buffer of OpenSSL's holds something; -1 with an exception. */
static int
holds(State *state, PyObject *records, enum attribute which)
{
    PyObject *buffer = get(state, records, which);
    PyObject *pending = buffer == NULL ? NULL : PyObject_GetAttr(buffer, state->calls[call_pending]);
    int answer = pending == NULL ? -1 : PyObject_IsTrue(pending);
    Py_XDECREF(buffer);
    Py_XDECREF(pending);
    return answer;
}

/*
 * Read one record, and no more of it than has come now: more memory than that is dear. What there is to be read
 * later is found by who reads again.
 */
static PyObject *
unseal(State *state, PyObject *records, PyObject *sealed)
{
    PyObject *incoming = NULL, *secrets = NULL, *data = NULL, *taken = NULL, *most = NULL;
    NEED(incoming, get(state, records, Records__incoming));
    NEED(taken, PyObject_CallMethodOneArg(incoming, state->calls[call_write], sealed));
    NEED(secrets, get(state, records, Records__secrets));
    NEED(most, PyLong_FromSsize_t(PyBytes_GET_SIZE(sealed)));
    data = PyObject_CallMethodOneArg(secrets, state->calls[call_read], most);
failed:
    Py_XDECREF(incoming);
    Py_XDECREF(taken);
    Py_XDECREF(secrets);
    Py_XDECREF(most);
    return data;
}

/* Tell of the error that is set, if it is OpenSSL's. */
static PyObject *
read_stopped(State *state, PyObject *stream, PyObject *size)
{
    PyObject *type, *error, *traceback;
    if (!PyErr_ExceptionMatches(PyExc_OSError)) {
        return NULL;
    }
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyObject *all[] = {stream, error, size};
    PyObject *result = call_python(state, call__stopped, all, 3);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return result;
}

PyObject *
read_tls(State *state, PyObject *stream)
{
    char buffer[READ_SIZE];
    PyObject *sealed = NULL, *records = NULL, *data = NULL, *protocol = NULL, *come = NULL;
    PyObject *why = NULL;
    Py_ssize_t number;
    DO(get_number(state, stream, Stream___number, &number));
    ssize_t size = receive((int)number, buffer, sizeof buffer);
    if (size <= 0) {
        return read_nothing(state, stream, size);
    }
    NEED(sealed, PyBytes_FromStringAndSize(buffer, size));
    if (size > FULL_RECORD) {
        why = call_python_with(state, call__open, stream, sealed);
        goto failed;
    }
    NEED(come, PyLong_FromSsize_t(size));
    NEED(records, get(state, stream, Stream___records));
    data = unseal(state, records, sealed);
    if (data == NULL) {
        why = read_stopped(state, stream, come);
        goto failed;
    }
    /* As much as was asked for may be a part of a record whose beginning had come before. */
    UNLESS_SELDOM(!PyBytes_CheckExact(data) || !PyBytes_GET_SIZE(data) || PyBytes_GET_SIZE(data) == size);
    UNLESS_SELDOM(holds(state, records, Records__incoming));
    UNLESS_SELDOM(holds(state, records, Records__outgoing));
    DO(set_number(state, records, Records___silent, 0));
    NEED(protocol, get(state, stream, Stream___protocol));
    DO(deliver(state, protocol, data));
    why = Py_NewRef(Py_None);
    goto failed;
seldom:;
    PyObject *all[] = {stream, data, come};
    why = call_python(state, call__read_on, all, 3);
failed:
    Py_XDECREF(sealed);
    Py_XDECREF(records);
    Py_XDECREF(data);
    Py_XDECREF(protocol);
    Py_XDECREF(come);
    return why;
}

PyObject *
Stream__read_tls(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    return count == 1 ? read_tls(state, arguments[0])
                      : in_python(state, Stream___read_tls, arguments, count);
}

/* What is sent for this in TLS, of what fits into one record; NULL without an exception if it is left to Python. */
static PyObject *
seal(State *state, PyObject *stream, PyObject *data)
{
    PyObject *records = NULL, *secrets = NULL, *outgoing = NULL, *taken = NULL, *sealed = NULL;
    NEED(records, get(state, stream, Stream___records));
    NEED(secrets, get(state, records, Records__secrets));
    NEED(outgoing, get(state, records, Records__outgoing));
    taken = PyObject_CallMethodOneArg(secrets, state->calls[call_write], data);
    if (taken == NULL && PyErr_ExceptionMatches(PyExc_OSError)) {
        /* It comes again. */
        PyErr_Clear();
    }
    if (taken != NULL) {
        NEED(sealed, PyObject_CallMethodNoArgs(outgoing, state->calls[call_read]));
        if (set_number(state, records, Records__said, PyBytes_GET_SIZE(data)) < 0
            || set_number(state, records, Records__since, PyObject_Size(sealed)) < 0) {
            Py_CLEAR(sealed);
        }
    }
failed:
    Py_XDECREF(records);
    Py_XDECREF(secrets);
    Py_XDECREF(outgoing);
    Py_XDECREF(taken);
    return sealed;
}

/* Write to a stream; -1 with an exception. */
int
put(State *state, PyObject *stream, PyObject *data)
{
    Py_ssize_t number, waiting;
    if (state->stream == NULL || !PyObject_TypeCheck(stream, state->stream) || !PyBytes_CheckExact(data)) {
        goto python;
    }
    int plain = is_true(state, stream, Stream__plain);
    if (plain < 0) {
        return -1;
    }
    if (!plain && (PyBytes_GET_SIZE(data) > FULL_RECORD || !PyBytes_GET_SIZE(data))) {
        goto python;
    }
    if (outbox_is_in_the_way(&state->outbox, stream) && empty_outbox(state) < 0) {
        return -1;
    }
    int none = is(state, stream, Stream___socket, Py_None);
    int bad = none ? none : is_true(state, stream, Stream___write_failed);
    bad = bad ? bad : is_true(state, stream, Stream___shut);
    if (bad) {
        if (bad < 0) {
            return -1;
        }
        goto python;
    }
    if (get_number(state, stream, Stream___waiting, &waiting) < 0
        || get_number(state, stream, Stream___number, &number) < 0) {
        return -1;
    }
    if (waiting) {
        goto python;
    }
    if (plain) {
        return post(state, stream, (int)number, data);
    }
    PyObject *sealed = seal(state, stream, data);
    if (sealed != NULL) {
        int done = post(state, stream, (int)number, sealed);
        Py_DECREF(sealed);
        return done;
    }
    if (PyErr_Occurred()) {
        return -1;
    }
python:
    if (state->stream != NULL && PyObject_TypeCheck(stream, state->stream)) {
        PyObject *both[] = {stream, data};
        return ignore(in_python(state, Stream__write, both, 2));
    }
    return ignore(call_python_with(state, call_write, stream, data));
}

PyObject *
Stream_write(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    if (count != 2) {
        return in_python(state, Stream__write, arguments, count);
    }
    if (put(state, arguments[0], arguments[1]) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Whether both are streams with nothing to be sent, for which nobody is paused. */
static int
are_free(State *state, PyObject *one, PyObject *other)
{
    Py_ssize_t waiting, others;
    int paused;
    if (state->stream == NULL || !PyObject_TypeCheck(one, state->stream)
        || !PyObject_TypeCheck(other, state->stream)) {
        return 0;
    }
    if (get_number(state, one, Stream___waiting, &waiting) < 0
        || get_number(state, other, Stream___waiting, &others) < 0) {
        return -1;
    }
    if ((paused = is_true(state, one, Stream___producer_paused)) != 0
        || (paused = is_true(state, other, Stream___producer_paused)) != 0) {
        return paused < 0 ? -1 : 0;
    }
    return !waiting && !others;
}

int
couple(State *state, PyObject *one, PyObject *other)
{
    int free = are_free(state, one, other);
    if (free < 0) {
        return -1;
    }
    if (!free) {
        return ignore(call_python_with(state, call_couple, one, other));
    }
    if (set(state, one, Stream___producer, other) < 0) {
        return -1;
    }
    return set(state, other, Stream___producer, one);
}

int
uncouple(State *state, PyObject *one, PyObject *other)
{
    int free = are_free(state, one, other);
    if (free < 0) {
        return -1;
    }
    if (!free) {
        return ignore(call_python_with(state, call_uncouple, one, other));
    }
    if (set(state, one, Stream___producer, Py_None) < 0) {
        return -1;
    }
    return set(state, other, Stream___producer, Py_None);
}
