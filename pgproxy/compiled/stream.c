/* link/transport.py: reads and writes a socket. */

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
        if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
            Py_RETURN_NONE;
        }
        PyObject *lost = PyBool_FromLong(size < 0);
        PyObject *why =
            call_python_with(state, call__connection_ended, stream, lost);
        Py_DECREF(lost);
        return why;
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

PyObject *
Stream__read_tls(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    PyObject *read = NULL, *data = NULL, *protocol = NULL, *result = NULL;
    if (count != 1) {
        return in_python(state, Stream___read_tls, arguments, count);
    }
    PyObject *stream = arguments[0];
    NEED(read, get(state, stream, Stream___tls_read));
    data = PyObject_CallOneArg(read, state->full_record);
    if (data == NULL) {
        PyObject *type, *error, *traceback;
        if (!PyErr_ExceptionMatches(PyExc_OSError)) {
            goto failed;
        }
        PyErr_Fetch(&type, &error, &traceback);
        PyErr_NormalizeException(&type, &error, &traceback);
        result = call_python_with(state, call__tls_failed, stream, error);
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(traceback);
        goto failed;
    }
    Py_ssize_t size = PyObject_Size(data);
    DO(size);
    if (!size) {
        result = call_python_with(state, call__connection_ended, stream, Py_False);
        goto failed;
    }
    if (size == FULL_RECORD) {
        result = call_python_with(state, call__read_records, stream, data);
        goto failed;
    }
    NEED(protocol, get(state, stream, Stream___protocol));
    DO(deliver(state, protocol, data));
    result = Py_NewRef(Py_None);
failed:
    Py_XDECREF(read);
    Py_XDECREF(data);
    Py_XDECREF(protocol);
    return result;
}

/* Send in TLS what fits into one record; 1 if that is done, 0 if it is left to Python. */
static int
put_tls(State *state, PyObject *stream, PyObject *data)
{
    Py_ssize_t waiting;
    if (PyBytes_GET_SIZE(data) > FULL_RECORD) {
        return 0;
    }
    PyObject *write = get(state, stream, Stream___tls_write);
    if (write == NULL || write == Py_None) {
        Py_XDECREF(write);
        return write == NULL ? -1 : 0;
    }
    int bad = is_true(state, stream, Stream___write_failed);
    bad = bad ? bad : is_true(state, stream, Stream___shut);
    if (!bad) {
        bad = get_number(state, stream, Stream___waiting, &waiting) < 0 ? -1 : waiting > 0;
    }
    if (bad) {
        Py_DECREF(write);
        return bad < 0 ? -1 : 0;
    }
    PyObject *taken = PyObject_CallOneArg(write, data);
    Py_DECREF(write);
    if (taken != NULL) {
        Py_ssize_t size = PyLong_AsSsize_t(taken);
        Py_DECREF(taken);
        if (size == PyBytes_GET_SIZE(data)) {
            return 1;
        }
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError, "TLS has sent a part of a record");
        }
        return -1;
    }
    if (!PyErr_ExceptionMatches(PyExc_OSError)) {
        return -1;
    }
    /* To say it again is what is to be done where it would block; any other error comes again. */
    PyErr_Clear();
    return 0;
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
    if (plain <= 0) {
        int done = plain < 0 ? -1 : put_tls(state, stream, data);
        if (done) {
            return done < 0 ? -1 : 0;
        }
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
    return post(state, stream, (int)number, data);
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
