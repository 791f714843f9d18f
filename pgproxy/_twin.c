/*
 * The compiled twin: the way of what nearly everybody says, once more.
 *
 * It has no types and no state of its own but names. Each function stands in for a method in Python, on the same
 * objects, and deals with what is plain: a message that leaves nothing behind, an answer that ends in a
 * ReadyForQuery, rows on their way. Before it changes anything it has seen that it can do all of it; whatever
 * else there is it leaves to the method in Python.
 *
 * pgproxy/twin.py says who uses it. What the attributes mean is said where they are made.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

enum { HEADER = 5, READ_SIZE = 64 * 1024, FULL_RECORD = 16 * 1024, EVENTS = 256, MOST_OWED = 10000 };
enum { CACHED_TEXT = 2048, TEXT_LOOK = 16 * 1024, MOST_FRAMES = 32 };
enum { OURS = 1, COPY_END = 0, LONGEST_NAME = 63, MOST_CALLED = 2000 };
/* Seconds. */
#define LONGEST_TURN 1.0

/* The attributes that are looked at: the class that has them as slots, and their names. */
#define ATTRIBUTES(X)                                                                                        \
    X(Skimmer, _held) X(Skimmer, direction) X(Skimmer, left)                                                 \
    X(Direction, table)                                                                                      \
    X(Stream, _number) X(Stream, _producer) X(Stream, _producer_paused) X(Stream, _protocol)                 \
    X(Stream, _shut) X(Stream, _socket) X(Stream, _waiting) X(Stream, _write_failed) X(Stream, doRead)       \
    X(Stream, _tls_pending) X(Stream, _tls_read) X(Stream, _tls_write) X(Stream, plain)                                                                                         \
    X(Splice, _asked_since) X(Splice, _blocked) X(Splice, _cancel_wanted) X(Splice, _client)                 \
    X(Splice, _first) X(Splice, _keeps) X(Splice, _leaving) X(Splice, _lender) X(Splice, _overdrawn)         \
    X(Splice, _server) X(Splice, _skim) X(Splice, _talk) X(Splice, _terms) X(Splice, _unfinished)            \
    X(Splice, _used) X(Splice, _waiting)                                                                     \
    X(Conversation, ledger) X(Conversation, lets_go) X(Conversation, plain) X(Conversation, server) X(Conversation, settings)         \
    X(Conversation, told)                                                                                    \
    X(Following, _again) X(Following, _completions) X(Following, _greeted) X(Following, _prepared)         \
    X(Following, _quiet) X(Following, _retry) X(Following, _sequences) X(Following, _touched)                \
    X(Statement, body) X(Statement, description) X(Statement, meaning) X(Statement, turn)                    \
    X(Statement, verdict) X(Statement, whole)                                                                \
    X(Sequences, home)                                                                                       \
    X(Copy, description) X(Copy, name) X(Copy, turn)                                                         \
    X(NamedStatements, _statements)                                                                          \
    X(ServerStatements, _copies)                                                                             \
    X(Prepared, _called) X(Prepared, _statements) X(Prepared, _verified) X(Prepared, own_names)              \
    X(Prepared, scope)                                                                                       \
    X(Prepared, _ledger) X(Prepared, _server) X(Prepared, _unnamed) X(Prepared, descriptions)                \
    X(Prepared, meaning)                                                                                     \
    X(Prepared, readable)                                                                                    \
    X(Completions, _owed)                                                                                    \
    X(Descriptions, _owed)                                                                                   \
    X(Ledger, answered) X(Ledger, asked) X(Ledger, batch_open) X(Ledger, copying) X(Ledger, ends)            \
    X(Ledger, irregular) X(Ledger, owed) X(Ledger, status) X(Ledger, streaming)                              \
    X(ServerSession, habits) X(ServerSession, leftovers) X(ServerSession, opaque) X(ServerSession, owner)    \
    X(ServerSession, reported) X(ServerSession, settings) X(ServerSession, statements) X(ServerSession, unnamed)                          \
    X(Habits, hidden) X(Habits, sequences_matter)                                                            \
    X(Server, session)                                                                                       \
    X(ServerConnection, cancel_in_doubt) X(ServerConnection, cancels) X(ServerConnection, receive)           \
    X(ServerConnection, record) X(ServerConnection, skim) X(ServerConnection, transport)                     \
    X(Terms, parameters)                                                                                     \
    X(DirectReactor, _newTimedCalls) X(DirectReactor, _poller) X(DirectReactor, _selectables)

#define NAME(class, name) class##__##name,
enum attribute { ATTRIBUTES(NAME) ATTRIBUTES_END };

#define PAIR(class, name) {#class, #name},
static const struct {
    const char *class, *name;
} attributes[] = {ATTRIBUTES(PAIR)};

/* The methods of ours, by class and name; and what only is called, by name. */
#define METHODS(X)                                                                                           \
    X(Skimmer, feed) X(Stream, _read_plain) X(Stream, _read_tls) X(Stream, write) X(Splice, from_client)                          \
    X(Splice, _from_server) X(DirectReactor, doPoll)
enum method { METHODS(NAME) METHODS_END };

#define CALLS(X)                                                                                             \
    X(_connection_ended) X(_tls_failed) X(_read_records) X(_keep) X(_fail_writing) X(dataReceived) X(write) X(couple) X(uncouple)            \
    X(_said) X(_said_to) X(_heard) X(_from_server) X(_go_on) X(take) X(hand_on) X(append) X(popleft)         \
    X(_no_unnamed) X(fileno) X(_dispatch) X(_broke) X(_disconnectSelectable)
#define CALL_NAME(name) call_##name,
enum call { CALLS(CALL_NAME) CALLS_END };
#define CALL_TEXT(name) #name,
static const char *const calls[] = {CALLS(CALL_TEXT)};

typedef struct {
    PyObject *names[ATTRIBUTES_END];
    PyTypeObject *types[ATTRIBUTES_END];
    Py_ssize_t offsets[ATTRIBUTES_END];
    PyObject *in_python[METHODS_END];
    PyObject *calls[CALLS_END];
    PyTypeObject *stream, *following, *completion;
    PyObject *harmless, *next_turn;
    PyObject *empty, *full_record;
    /* How many messages and answers have been plain. */
    unsigned long plain;
    /* What may stand before a parenthesis in a harmless text. */
    PyObject *words;
    /* How the tags begin that are quiet where statements do nothing in hiding. */
    PyObject *quiet;
    /* What is looked at of a server that does nothing special. */
    PyObject *from_server;
} State;

static struct PyModuleDef definition;

static State *
state_of(PyObject *module)
{
    return (State *)PyModule_GetState(module);
}

/* Attributes. */

static inline PyObject **
slot(State *state, PyObject *object, enum attribute which)
{
    PyTypeObject *type = state->types[which];
    if (type == NULL || !PyObject_TypeCheck(object, type)) {
        return NULL;
    }
    return (PyObject **)((char *)object + state->offsets[which]);
}

/* A new reference; NULL with an exception where there is no such attribute. */
static inline PyObject *
get(State *state, PyObject *object, enum attribute which)
{
    PyObject **place = slot(state, object, which);
    if (place != NULL && *place != NULL) {
        return Py_NewRef(*place);
    }
    return PyObject_GetAttr(object, state->names[which]);
}

static int
set(State *state, PyObject *object, enum attribute which, PyObject *value)
{
    PyObject **place = slot(state, object, which);
    if (place != NULL) {
        PyObject *old = *place;
        *place = Py_NewRef(value);
        Py_XDECREF(old);
        return 0;
    }
    return PyObject_SetAttr(object, state->names[which], value);
}

static int
set_number(State *state, PyObject *object, enum attribute which, Py_ssize_t value)
{
    PyObject *number = PyLong_FromSsize_t(value);
    if (number == NULL) {
        return -1;
    }
    int done = set(state, object, which, number);
    Py_DECREF(number);
    return done;
}

static int
get_number(State *state, PyObject *object, enum attribute which, Py_ssize_t *value)
{
    PyObject **place = slot(state, object, which);
    if (place != NULL && *place != NULL) {
        *value = PyLong_AsSsize_t(*place);
    } else {
        PyObject *number = PyObject_GetAttr(object, state->names[which]);
        if (number == NULL) {
            return -1;
        }
        *value = PyLong_AsSsize_t(number);
        Py_DECREF(number);
    }
    return *value == -1 && PyErr_Occurred() ? -1 : 0;
}

/* Whether an attribute is true; -1 with an exception. */
static int
is_true(State *state, PyObject *object, enum attribute which)
{
    PyObject **place = slot(state, object, which);
    if (place != NULL && (*place == Py_False || *place == Py_True)) {
        return *place == Py_True;
    }
    PyObject *value = get(state, object, which);
    if (value == NULL) {
        return -1;
    }
    int truth = PyObject_IsTrue(value);
    Py_DECREF(value);
    return truth;
}

/* Whether an attribute is this very object; -1 with an exception. */
static int
is(State *state, PyObject *object, enum attribute which, PyObject *what)
{
    PyObject *value = get(state, object, which);
    if (value == NULL) {
        return -1;
    }
    Py_DECREF(value);
    return value == what;
}

/* Errors leave by `failed`, what is not plain leaves by `seldom`. */
#define NEED(name, expression)                                                                               \
    do {                                                                                                     \
        (name) = (expression);                                                                               \
        if ((name) == NULL) {                                                                                \
            goto failed;                                                                                     \
        }                                                                                                    \
    } while (0)
#define DO(expression)                                                                                       \
    do {                                                                                                     \
        if ((expression) < 0) {                                                                              \
            goto failed;                                                                                     \
        }                                                                                                    \
    } while (0)
#define UNLESS_SELDOM(expression)                                                                            \
    do {                                                                                                     \
        int answer_ = (expression);                                                                          \
        if (answer_ < 0) {                                                                                   \
            goto failed;                                                                                     \
        }                                                                                                    \
        if (answer_) {                                                                                       \
            goto seldom;                                                                                     \
        }                                                                                                    \
    } while (0)
#define ONLY_IF(expression)                                                                                  \
    do {                                                                                                     \
        int answer_ = (expression);                                                                          \
        if (answer_ < 0) {                                                                                   \
            goto failed;                                                                                     \
        }                                                                                                    \
        if (!answer_) {                                                                                      \
            goto seldom;                                                                                     \
        }                                                                                                    \
    } while (0)

/* Do what a call gives is of no interest. */
static int
ignore(PyObject *result)
{
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

static PyObject *
in_python(State *state, enum method which, PyObject *const *arguments, Py_ssize_t count)
{
    return PyObject_Vectorcall(state->in_python[which], arguments, (size_t)count, NULL);
}

/* Framing: wire/skim.py. */

typedef struct {
    int tag;
    Py_ssize_t start, stop;
} Frame;

typedef struct {
    PyObject *run;
    PyObject *held;
    Py_ssize_t left;
    Py_ssize_t count;
    Frame frames[MOST_FRAMES];
} Skimmed;

/* A length word. */
static uint32_t
word(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/*
 * Cut what came; nothing is entered yet. Gives 1; 0 where it is left to Python, as it is malformed or has too
 * many frames; -1 with an exception.
 */
static int
cut(State *state, PyObject *skimmer, PyObject *data, Skimmed *skimmed)
{
    PyObject *held = NULL, *direction = NULL, *table = NULL, *whole = NULL;
    skimmed->run = skimmed->held = NULL;
    skimmed->count = 0;
    if (!PyBytes_CheckExact(data)) {
        return 0;
    }
    NEED(held, get(state, skimmer, Skimmer___held));
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
            skimmed->frames[skimmed->count++] = (Frame){tag, position, seen};
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

static void
forget(Skimmed *skimmed)
{
    Py_CLEAR(skimmed->run);
    Py_CLEAR(skimmed->held);
}

static int
enter(State *state, PyObject *skimmer, const Skimmed *skimmed)
{
    if (set(state, skimmer, Skimmer___held, skimmed->held) < 0) {
        return -1;
    }
    return set_number(state, skimmer, Skimmer__left, skimmed->left);
}

static PyObject *
listed(const Skimmed *skimmed)
{
    PyObject *list = PyList_New(skimmed->count);
    for (Py_ssize_t index = 0; list != NULL && index < skimmed->count; index++) {
        const Frame *frame = &skimmed->frames[index];
        PyObject *item = Py_BuildValue("(inn)", frame->tag, frame->start, frame->stop);
        if (item == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, index, item);
    }
    return list;
}

static PyObject *
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

/* The socket: link/transport.py. */

/* `protocol.dataReceived(data)`; a server's is known. */
static int
deliver(State *state, PyObject *protocol, PyObject *data)
{
    PyTypeObject *servers = state->types[ServerConnection__receive];
    if (servers == NULL || Py_TYPE(protocol) != servers) {
        return ignore(PyObject_CallMethodOneArg(protocol, state->calls[call_dataReceived], data));
    }
    PyObject *receive = get(state, protocol, ServerConnection__receive);
    if (receive == NULL) {
        return -1;
    }
    int done = ignore(PyObject_CallOneArg(receive, data));
    Py_DECREF(receive);
    return done;
}

static PyObject *
Stream__read_plain(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    /* One call reads at a time, and what it has read is copied before anything else is called. */
    char buffer[READ_SIZE];
    Py_ssize_t number;
    if (count != 1) {
        return in_python(state, Stream___read_plain, arguments, count);
    }
    if (get_number(state, arguments[0], Stream___number, &number) < 0) {
        return NULL;
    }
    ssize_t size = recv((int)number, buffer, sizeof buffer, MSG_DONTWAIT);
    if (size <= 0) {
        if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
            Py_RETURN_NONE;
        }
        PyObject *lost = PyBool_FromLong(size < 0);
        PyObject *why =
            PyObject_CallMethodOneArg(arguments[0], state->calls[call__connection_ended], lost);
        Py_DECREF(lost);
        return why;
    }
    PyObject *data = PyBytes_FromStringAndSize(buffer, size);
    if (data == NULL) {
        return NULL;
    }
    PyObject *protocol = get(state, arguments[0], Stream___protocol);
    int done = protocol == NULL ? -1 : deliver(state, protocol, data);
    Py_XDECREF(protocol);
    Py_DECREF(data);
    return done < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
Stream__read_tls(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    PyObject *read = NULL, *pending = NULL, *more = NULL, *data = NULL, *protocol = NULL, *result = NULL;
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
        result = PyObject_CallMethodOneArg(stream, state->calls[call__tls_failed], error);
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(traceback);
        goto failed;
    }
    Py_ssize_t size = PyObject_Size(data);
    DO(size);
    if (!size) {
        result = PyObject_CallMethodOneArg(stream, state->calls[call__connection_ended], Py_False);
        goto failed;
    }
    int there = size == FULL_RECORD;
    if (!there) {
        NEED(pending, get(state, stream, Stream___tls_pending));
        NEED(more, PyObject_CallNoArgs(pending));
        DO(there = PyObject_IsTrue(more));
    }
    if (there) {
        result = PyObject_CallMethodOneArg(stream, state->calls[call__read_records], data);
        goto failed;
    }
    NEED(protocol, get(state, stream, Stream___protocol));
    DO(deliver(state, protocol, data));
    result = Py_NewRef(Py_None);
failed:
    Py_XDECREF(read);
    Py_XDECREF(pending);
    Py_XDECREF(more);
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
static int
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
    int none = is(state, stream, Stream___socket, Py_None);
    int bad = none ? none : is_true(state, stream, Stream___write_failed);
    bad = bad ? bad : is_true(state, stream, Stream___shut);
    if (bad) {
        return bad < 0 ? -1 : 0;
    }
    if (get_number(state, stream, Stream___waiting, &waiting) < 0
        || get_number(state, stream, Stream___number, &number) < 0) {
        return -1;
    }
    if (waiting) {
        goto python;
    }
    ssize_t taken = send(
        (int)number, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data), MSG_DONTWAIT | MSG_NOSIGNAL
    );
    if (taken < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
            return ignore(PyObject_CallMethodNoArgs(stream, state->calls[call__fail_writing]));
        }
        taken = 0;
    }
    if (taken < PyBytes_GET_SIZE(data)) {
        PyObject *size = PyLong_FromSsize_t(taken);
        if (size == NULL) {
            return -1;
        }
        PyObject *all[] = {stream, data, size};
        int done = ignore(PyObject_VectorcallMethod(state->calls[call__keep], all, 3, NULL));
        Py_DECREF(size);
        return done;
    }
    return 0;
python:
    if (state->stream != NULL && PyObject_TypeCheck(stream, state->stream)) {
        PyObject *both[] = {stream, data};
        return ignore(in_python(state, Stream__write, both, 2));
    }
    return ignore(PyObject_CallMethodOneArg(stream, state->calls[call_write], data));
}

static PyObject *
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

/* Whether both are streams with nothing to be sent. */
static int
are_free(State *state, PyObject *one, PyObject *other)
{
    Py_ssize_t waiting, others;
    if (state->stream == NULL || !PyObject_TypeCheck(one, state->stream)
        || !PyObject_TypeCheck(other, state->stream)) {
        return 0;
    }
    if (get_number(state, one, Stream___waiting, &waiting) < 0
        || get_number(state, other, Stream___waiting, &others) < 0) {
        return -1;
    }
    return !waiting && !others;
}

static int
couple(State *state, PyObject *one, PyObject *other)
{
    int free = are_free(state, one, other);
    if (free < 0) {
        return -1;
    }
    if (!free) {
        return ignore(PyObject_CallMethodOneArg(one, state->calls[call_couple], other));
    }
    if (set(state, one, Stream___producer, other) < 0) {
        return -1;
    }
    return set(state, other, Stream___producer, one);
}

static int
uncouple(State *state, PyObject *one, PyObject *other)
{
    /* Where nothing waits to be sent nobody is paused for it. */
    int free = are_free(state, one, other);
    if (free < 0) {
        return -1;
    }
    if (!free) {
        return ignore(PyObject_CallMethodOneArg(one, state->calls[call_uncouple], other));
    }
    if (set(state, one, Stream___producer, Py_None) < 0) {
        return -1;
    }
    return set(state, other, Stream___producer, Py_None);
}

/* What a text may leave behind: session/suspicion.py:quick. */

enum { NOTHING_SAID, SAYS_HARMLESS, SAYS_WRITES };

static bool
is_space(unsigned char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

static bool
is_letter(unsigned char c)
{
    return c >= 'a' && c <= 'z';
}

/* Of the lower case. */
static bool
is_word(unsigned char c)
{
    return is_letter(c) || is_digit(c) || c == '_';
}

static bool
is_name(unsigned char c)
{
    return is_word(c) || c == '$' || c >= 0x80;
}

static bool
contains(const unsigned char *text, Py_ssize_t size, const char *what)
{
    return size > 0 && memmem(text, (size_t)size, what, strlen(what)) != NULL;
}

static bool
starts(const unsigned char *text, Py_ssize_t size, const char *what)
{
    return size >= (Py_ssize_t)strlen(what) && memcmp(text, what, strlen(what)) == 0;
}

static Py_ssize_t
skip_space(const unsigned char *text, Py_ssize_t size, Py_ssize_t at)
{
    while (at < size && is_space(text[at])) {
        at++;
    }
    return at;
}

/* Where the head of an INSERT ends, behind the parenthesis that may follow the table; -1 if it is none. */
static Py_ssize_t
insert_head(const unsigned char *text, Py_ssize_t size)
{
    static const char *const not_tables[] = {"temp", "local", "global", "into"};
    Py_ssize_t at = skip_space(text, size, 0) + (Py_ssize_t)strlen("insert");
    Py_ssize_t next = skip_space(text, size, at);
    if (next == at || !starts(text + next, size - next, "into")) {
        return -1;
    }
    at = next + (Py_ssize_t)strlen("into");
    next = skip_space(text, size, at);
    if (next == at) {
        return -1;
    }
    for (size_t which = 0; which < Py_ARRAY_LENGTH(not_tables); which++) {
        if (starts(text + next, size - next, not_tables[which])) {
            return -1;
        }
    }
    at = next;
    while (at < size) {
        if (is_word(text[at]) || text[at] == '.') {
            at++;
        } else if (text[at] == '"') {
            const unsigned char *end = memchr(text + at + 1, '"', (size_t)(size - at - 1));
            if (end == NULL) {
                break;
            }
            at = end - text + 1;
        } else {
            break;
        }
    }
    if (at == next) {
        return -1;
    }
    at = skip_space(text, size, at);
    return at < size && text[at] == '(' ? at + 1 : at;
}

/* Whether all that stands before a parenthesis is harmless; -1 with an exception. */
static int
calls_are_harmless(State *state, const unsigned char *text, Py_ssize_t size)
{
    for (Py_ssize_t at = 0; at < size; at++) {
        if (text[at] != '(') {
            continue;
        }
        Py_ssize_t end = at;
        while (end > 0 && is_space(text[end - 1])) {
            end--;
        }
        Py_ssize_t before = -1;
        if (end >= 4 && memcmp(text + end - 4, "over", 4) == 0) {
            before = end - 4;
        } else if (end >= 6 && memcmp(text + end - 6, "filter", 6) == 0) {
            before = end - 6;
        }
        if (before >= 0) {
            while (before > 0 && is_space(text[before - 1])) {
                before--;
            }
            if (before > 0 && text[before - 1] == ')') {
                continue;
            }
        }
        Py_ssize_t start = end;
        while (start > 0 && (is_name(text[start - 1]) || text[start - 1] == '"')) {
            start--;
        }
        before = start;
        while (before > 0 && is_space(text[before - 1])) {
            before--;
        }
        if (before > 0 && text[before - 1] == '.') {
            return 0;
        }
        if (start == end) {
            continue;
        }
        PyObject *word = PyBytes_FromStringAndSize((const char *)text + start, end - start);
        if (word == NULL) {
            return -1;
        }
        int harmless = PySet_Contains(state->words, word);
        Py_DECREF(word);
        if (harmless <= 0) {
            return harmless;
        }
    }
    return 1;
}

/* Judge a text that is in lower case; -1 with an exception. */
static int
judge(State *state, const unsigned char *text, Py_ssize_t size)
{
    static const char *const ends[] = {
        "begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release",
    };
    Py_ssize_t head = skip_space(text, size, 0), tail = head;
    while (tail < size && is_letter(text[tail])) {
        tail++;
    }
    if (tail == head || (tail < size && is_name(text[tail]))) {
        return NOTHING_SAID;
    }
    Py_ssize_t semicolon = -1;
    bool calls = false, into = false;
    for (Py_ssize_t at = 0; at < size; at++) {
        unsigned char next = at + 1 < size ? text[at + 1] : 0;
        switch (text[at]) {
        case '\\':
            return NOTHING_SAID;
        case '-':
            if (next == '-') {
                return NOTHING_SAID;
            }
            break;
        case '/':
            if (next == '*') {
                return NOTHING_SAID;
            }
            break;
        case '&':
            if (next == '"') {
                return NOTHING_SAID;
            }
            break;
        case '$':
            if (!is_digit(next)) {
                return NOTHING_SAID;
            }
            break;
        case 'p':
            if (next == 'g' && at + 2 < size && text[at + 2] == '_') {
                return NOTHING_SAID;
            }
            break;
        case 'i':
            into = into || starts(text + at, size - at, "into");
            break;
        case ';':
            if (semicolon < 0) {
                semicolon = at;
            }
            break;
        case '(':
            calls = true;
            break;
        default:
            break;
        }
    }
    if (semicolon >= 0 && skip_space(text, size, semicolon + 1) < size) {
        return NOTHING_SAID;
    }
    const unsigned char *verb = text + head;
    size_t length = (size_t)(tail - head);
#define IS(what) (length == strlen(what) && memcmp(verb, what, length) == 0)
    for (size_t which = 0; which < Py_ARRAY_LENGTH(ends); which++) {
        if (IS(ends[which])) {
            return SAYS_HARMLESS;
        }
    }
    int says = SAYS_HARMLESS;
    if (IS("insert")) {
        Py_ssize_t end = insert_head(text, size);
        if (end < 0) {
            return NOTHING_SAID;
        }
        text += end;
        size -= end;
        into = contains(text, size, "into");
        calls = contains(text, size, "(");
        says = SAYS_WRITES;
    } else if (IS("update")) {
        if (contains(text, size, "default")) {
            return NOTHING_SAID;
        }
    } else if (IS("with")) {
        if (contains(text, size, "insert") || contains(text, size, "merge")
            || contains(text, size, "default")) {
            return NOTHING_SAID;
        }
    } else if (!IS("select") && !IS("delete")) {
        return NOTHING_SAID;
    }
#undef IS
    if (into) {
        return NOTHING_SAID;
    }
    if (calls) {
        if (contains(text, size, "distinct")) {
            return NOTHING_SAID;
        }
        int harmless = calls_are_harmless(state, text, size);
        if (harmless <= 0) {
            return harmless < 0 ? -1 : NOTHING_SAID;
        }
    }
    return says;
}

/* Judge a text of at most CACHED_TEXT bytes. */
static int
quick(State *state, const char *text, Py_ssize_t size)
{
    unsigned char lower[CACHED_TEXT];
    if (state->words == NULL || size <= 0 || size > CACHED_TEXT) {
        return NOTHING_SAID;
    }
    for (Py_ssize_t at = 0; at < size; at++) {
        unsigned char c = (unsigned char)text[at];
        lower[at] = c >= 'A' && c <= 'Z' ? c | 0x20 : c;
    }
    return judge(state, lower, size);
}

static PyObject *
quick_says(PyObject *module, PyObject *text)
{
    if (!PyBytes_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "a text is bytes");
        return NULL;
    }
    int says = quick(state_of(module), PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text));
    return says < 0 ? NULL : PyLong_FromLong(says);
}

/* The ledger: session/ledger.py. */

static int
is_empty(State *state, PyObject *object, enum attribute which)
{
    PyObject *queue = get(state, object, which);
    if (queue == NULL) {
        return -1;
    }
    Py_ssize_t size = PyObject_Size(queue);
    Py_DECREF(queue);
    return size < 0 ? -1 : !size;
}

/* What stands in `owed`, at most two of it; gives how many there are. */
static Py_ssize_t
owed(State *state, PyObject *ledger, PyObject **queue, long *first, long *second)
{
    *first = *second = -1;
    *queue = get(state, ledger, Ledger__owed);
    Py_ssize_t count = *queue == NULL ? -1 : PyObject_Size(*queue);
    for (Py_ssize_t at = 0; at < count && at < 2; at++) {
        PyObject *tag = PySequence_GetItem(*queue, at);
        if (tag == NULL) {
            return -1;
        }
        long number = PyLong_AsLong(tag);
        Py_DECREF(tag);
        if (number == -1 && PyErr_Occurred()) {
            return -1;
        }
        *(at ? second : first) = number;
    }
    return count;
}

static int
is_status(State *state, PyObject *ledger, int status)
{
    Py_ssize_t number;
    return get_number(state, ledger, Ledger__status, &number) < 0 ? -1 : number == status;
}

/* Enter a message that is owed a ReadyForQuery. */
static int
ask(State *state, PyObject *ledger, PyObject *queue, int tag)
{
    Py_ssize_t asked;
    PyObject *number = PyLong_FromLong(tag);
    if (number == NULL) {
        return -1;
    }
    int done = ignore(PyObject_CallMethodOneArg(queue, state->calls[call_append], number));
    Py_DECREF(number);
    if (done < 0 || get_number(state, ledger, Ledger__asked, &asked) < 0
        || set_number(state, ledger, Ledger__asked, asked + 1) < 0) {
        return -1;
    }
    return set_number(state, ledger, Ledger__ends, 0);
}

/* Enter a ReadyForQuery that is owed. */
static int
ready(State *state, PyObject *ledger, PyObject *queue, int status)
{
    Py_ssize_t answered;
    if (ignore(PyObject_CallMethodNoArgs(queue, state->calls[call_popleft])) < 0
        || get_number(state, ledger, Ledger__answered, &answered) < 0
        || set_number(state, ledger, Ledger__answered, answered + 1) < 0
        || set_number(state, ledger, Ledger__ends, 0) < 0) {
        return -1;
    }
    return set_number(state, ledger, Ledger__status, status);
}

/* A link: link/splice.py, session/following.py. */

/* Link a server if there is nothing to be said to anybody; give 1 if it is linked. */
static int
link_up(State *state, PyObject *splice, PyObject *talk, PyObject *prepared, PyObject *ledger, PyObject *server)
{
    PyObject *record = NULL, *session = NULL, *habits = NULL, *left = NULL, *skim = NULL, *told = NULL;
    PyObject *settings = NULL, *client = NULL, *transport = NULL, *hear = NULL;
    int linked = -1;
    NEED(record, get(state, server, ServerConnection__record));
    NEED(session, get(state, record, Server__session));
    NEED(habits, get(state, session, ServerSession__habits));
    NEED(left, get(state, session, ServerSession__leftovers));
    NEED(skim, get(state, server, ServerConnection__skim));
    NEED(told, get(state, talk, Conversation__told));
    NEED(settings, get(state, talk, Conversation__settings));
    ONLY_IF(is(state, splice, Splice___first, Py_None));
    UNLESS_SELDOM(is_true(state, skim, Skimmer__left));
    ONLY_IF(is(state, talk, Following___greeted, told));
    ONLY_IF(is(state, session, ServerSession__reported, told));
    ONLY_IF(is(state, session, ServerSession__settings, settings));
    UNLESS_SELDOM(PyObject_IsTrue(left));
    UNLESS_SELDOM(is_true(state, habits, Habits__hidden));
    UNLESS_SELDOM(is_true(state, habits, Habits__sequences_matter));
    if (state->quiet == NULL) {
        goto seldom;
    }
    ONLY_IF(is(state, talk, Following___quiet, state->quiet));
    int owner = is(state, session, ServerSession__owner, talk);
    DO(owner);
    if (!owner) {
        UNLESS_SELDOM(is_true(state, session, ServerSession__opaque));
        DO(set(state, session, ServerSession__owner, talk));
    }
    NEED(client, get(state, splice, Splice___client));
    NEED(transport, get(state, server, ServerConnection__transport));
    NEED(hear, PyObject_GetAttr(splice, state->calls[call__from_server]));
    DO(set(state, splice, Splice___server, server));
    DO(set(state, server, ServerConnection__receive, hear));
    DO(couple(state, client, transport));
    DO(set(state, talk, Conversation__server, session));
    DO(set(state, prepared, Prepared___server, session));
    DO(set(state, prepared, Prepared___ledger, ledger));
    linked = 1;
    goto done;
seldom:
    linked = 0;
failed:
done:
    Py_XDECREF(record);
    Py_XDECREF(session);
    Py_XDECREF(habits);
    Py_XDECREF(left);
    Py_XDECREF(skim);
    Py_XDECREF(told);
    Py_XDECREF(settings);
    Py_XDECREF(client);
    Py_XDECREF(transport);
    Py_XDECREF(hear);
    return linked;
}

static PyObject *
take(State *state, PyObject *splice, PyObject *talk)
{
    PyObject *lender = NULL, *terms = NULL, *parameters = NULL, *settings = NULL, *sequences = NULL;
    PyObject *home = NULL, *server = NULL;
    NEED(lender, get(state, splice, Splice___lender));
    NEED(terms, get(state, splice, Splice___terms));
    NEED(parameters, get(state, terms, Terms__parameters));
    NEED(settings, get(state, talk, Conversation__settings));
    NEED(sequences, get(state, talk, Following___sequences));
    NEED(home, get(state, sequences, Sequences__home));
    PyObject *all[] = {lender, splice, parameters, settings, home};
    server = PyObject_VectorcallMethod(state->calls[call_take], all, 5, NULL);
failed:
    Py_XDECREF(lender);
    Py_XDECREF(terms);
    Py_XDECREF(parameters);
    Py_XDECREF(settings);
    Py_XDECREF(sequences);
    Py_XDECREF(home);
    return server;
}

/* Let a method in Python deal with what was cut; with a server, for one that is to be linked. */
static int
tell(State *state, enum call which, PyObject *splice, PyObject *server, const Skimmed *skimmed)
{
    PyObject *frames = listed(skimmed);
    if (frames == NULL) {
        return -1;
    }
    int done;
    if (server != NULL) {
        PyObject *all[] = {splice, server, skimmed->run, frames};
        done = ignore(PyObject_VectorcallMethod(state->calls[which], all, 4, NULL));
    } else {
        PyObject *all[] = {splice, skimmed->run, frames};
        done = ignore(PyObject_VectorcallMethod(state->calls[which], all, 3, NULL));
    }
    Py_DECREF(frames);
    return done;
}

/* Where the first zero is in a part of a run; -1 if there is none. */
static Py_ssize_t
zero(const char *run, Py_ssize_t start, Py_ssize_t stop)
{
    const char *found = start < stop ? memchr(run + start, 0, (size_t)(stop - start)) : NULL;
    return found == NULL ? -1 : found - run;
}

/* Whether a Describe is whole, and of a portal: prepared.py:_is_portals. */
static bool
is_portals(const char *run, const Frame *frame)
{
    Py_ssize_t size = frame->stop - frame->start;
    if (size < HEADER + 2 || run[frame->stop - 1] || run[frame->start + HEADER] != 'P') {
        return false;
    }
    return word(run + frame->start + 1) == (uint64_t)size - 1;
}

static bool
are(const Skimmed *skimmed, const char *tags)
{
    if (skimmed->count != (Py_ssize_t)strlen(tags)) {
        return false;
    }
    for (Py_ssize_t at = 0; at < skimmed->count; at++) {
        if (skimmed->frames[at].tag != tags[at]) {
            return false;
        }
    }
    return true;
}

/* What is said, and by whom. */
typedef struct {
    const Skimmed *skimmed;
    PyObject *talk, *prepared, *ledger, *queue, *session;


} Said;

/* Where a part of the first message begins and ends that is read. */
typedef struct {
    Py_ssize_t start, stop;
} Part;

/* Whether the text of a Query, or of the unnamed Parse of a whole batch, leaves nothing. */
static int
is_harmless(State *state, const Skimmed *skimmed, Part *text)
{
    const char *run = PyBytes_AS_STRING(skimmed->run);
    const Frame *frame = skimmed->frames;
    if (are(skimmed, "Q")) {
        *text = (Part){frame->start + HEADER, frame->stop - 1};
        if (frame->stop - frame->start > CACHED_TEXT) {
            return 0;
        }
    } else {
        *text = (Part){frame->start + HEADER + 1, zero(run, frame->start + HEADER + 1, frame->stop)};
        Py_ssize_t portal_end = zero(run, frame[1].start + HEADER, frame[1].stop);
        if (run[frame->start + HEADER] || text->stop < 0 || text->stop - frame->start > CACHED_TEXT
            || frame->stop - frame->start > TEXT_LOOK || portal_end < 0
            || portal_end + 1 >= frame[1].stop || run[portal_end + 1] || !is_portals(run, &frame[2])) {
            return 0;
        }
    }
    int says = quick(state, run + text->start, text->stop - text->start);
    return says < 0 ? -1 : says == SAYS_HARMLESS;
}

/* Enter the unnamed statement of a Parse: prepared.py:_prepares_and_asks. */
static int
parse(State *state, const Said *said, Py_ssize_t start)
{
    PyObject *statement = NULL, *body = NULL, *turn = NULL, *undo = NULL, *completions = NULL;
    PyObject *queue = NULL, *meaning = NULL, *asked = NULL, *fields = NULL, *arguments = NULL, *one = NULL;
    const Skimmed *skimmed = said->skimmed;
    const char *run = PyBytes_AS_STRING(skimmed->run);
    PyTypeObject *type = state->types[Statement__body];
    int done = -1;
    NEED(body, PyBytes_FromStringAndSize(run + start, skimmed->frames[0].stop - start));
    NEED(turn, PyObject_CallNoArgs(state->next_turn));
    NEED(meaning, get(state, said->prepared, Prepared__meaning));
    NEED(statement, type->tp_alloc(type, 0));
    DO(set(state, statement, Statement__body, body));
    DO(set(state, statement, Statement__verdict, state->harmless));
    DO(set(state, statement, Statement__meaning, meaning));
    DO(set(state, statement, Statement__whole, Py_True));
    DO(set(state, statement, Statement__turn, turn));
    DO(set(state, statement, Statement__description, Py_None));
    NEED(undo, PyObject_GetAttr(said->prepared, state->calls[call__no_unnamed]));
    NEED(asked, get(state, said->ledger, Ledger__asked));
    NEED(fields, Py_BuildValue("(iOOOO)", '1', asked, state->empty, undo, state->empty));
    NEED(arguments, PyTuple_Pack(1, fields));
    NEED(one, PyTuple_Type.tp_new(state->completion, arguments, NULL));
    NEED(completions, get(state, said->talk, Following___completions));
    NEED(queue, get(state, completions, Completions___owed));
    DO(ignore(PyObject_CallMethodOneArg(queue, state->calls[call_append], one)));
    DO(set(state, said->prepared, Prepared___unnamed, statement));
    DO(set(state, said->session, ServerSession__unnamed, statement));
    done = 0;
failed:
    Py_XDECREF(statement);
    Py_XDECREF(body);
    Py_XDECREF(turn);
    Py_XDECREF(undo);
    Py_XDECREF(completions);
    Py_XDECREF(queue);
    Py_XDECREF(meaning);
    Py_XDECREF(asked);
    Py_XDECREF(fields);
    Py_XDECREF(arguments);
    Py_XDECREF(one);
    return done;
}

/*
 * Say a Bind in the server's words, where the server has the statement, and it leaves nothing:
 * prepared.py:_asks. Gives 1 with what goes to the server, 0 if more has to be done about it.
 */
static int
say_bind(State *state, const Said *said, PyObject **instead)
{
    PyObject *named = NULL, *book = NULL, *name = NULL, *statement = NULL, *statements = NULL, *copies = NULL;
    PyObject *key = NULL, *copy = NULL, *body = NULL, *meaning = NULL, *ours = NULL, *called = NULL;
    PyObject *told = NULL, *describes = NULL;
    const Skimmed *skimmed = said->skimmed;
    const Frame *frame = skimmed->frames;
    const char *run = PyBytes_AS_STRING(skimmed->run);
    Py_ssize_t turn, latest;
    int done = -1;
    Py_ssize_t portal_end = zero(run, frame->start + HEADER, frame->stop);
    Py_ssize_t name_end = portal_end < 0 ? -1 : zero(run, portal_end + 1, frame->stop);
    Py_ssize_t size = name_end - portal_end - 1;
    if (portal_end < 0 || size < 1 || size > LONGEST_NAME || !is_portals(run, &frame[1])) {
        return 0;
    }
    ONLY_IF(is(state, said->prepared, Prepared__scope, Py_None));
    UNLESS_SELDOM(is_true(state, said->prepared, Prepared__own_names));
    NEED(named, get(state, said->prepared, Prepared___statements));
    NEED(book, get(state, named, NamedStatements___statements));
    NEED(statements, get(state, said->session, ServerSession__statements));
    NEED(copies, get(state, statements, ServerStatements___copies));
    NEED(called, get(state, said->prepared, Prepared___called));
    if (!PyDict_CheckExact(book) || !PyDict_CheckExact(copies) || !PyDict_CheckExact(called)
        || PyDict_GET_SIZE(called) >= MOST_CALLED) {
        goto seldom;
    }
    NEED(name, PyBytes_FromStringAndSize(run + portal_end + 1, size));
    statement = Py_XNewRef(PyDict_GetItemWithError(book, name));
    if (statement == NULL) {
        if (PyErr_Occurred()) {
            goto failed;
        }
        goto seldom;
    }
    if (state->harmless == NULL) {
        goto seldom;
    }
    ONLY_IF(is(state, statement, Statement__verdict, state->harmless));
    ONLY_IF(is_true(state, statement, Statement__whole));
    NEED(body, get(state, statement, Statement__body));
    NEED(meaning, get(state, statement, Statement__meaning));
    NEED(key, PyTuple_Pack(2, body, meaning));
    copy = Py_XNewRef(PyDict_GetItemWithError(copies, key));
    if (copy == NULL) {
        if (PyErr_Occurred()) {
            goto failed;
        }
        goto seldom;
    }
    DO(get_number(state, copy, Copy__turn, &latest));
    DO(get_number(state, statement, Statement__turn, &turn));
    if (latest < turn) {
        goto seldom;
    }
    NEED(told, get(state, statement, Statement__description));
    if (told != Py_None) {
        NEED(describes, get(state, copy, Copy__description));
        ONLY_IF(PyObject_RichCompareBool(told, describes, Py_EQ));
    }
    NEED(ours, get(state, copy, Copy__name));
    if (!PyBytes_CheckExact(ours)) {
        goto seldom;
    }
    Py_ssize_t longer = PyBytes_GET_SIZE(ours) - size, length = PyBytes_GET_SIZE(skimmed->run);
    uint32_t says = word(run + frame->start + 1) + (uint32_t)longer;
    NEED(*instead, PyBytes_FromStringAndSize(NULL, length + longer));
    char *at = PyBytes_AS_STRING(*instead);
    memcpy(at, run, (size_t)portal_end + 1);
    for (int byte = 0; byte < 4; byte++) {
        at[frame->start + 1 + byte] = (char)(says >> (24 - 8 * byte));
    }
    memcpy(at + portal_end + 1, PyBytes_AS_STRING(ours), (size_t)PyBytes_GET_SIZE(ours));
    memcpy(
        at + portal_end + 1 + PyBytes_GET_SIZE(ours), run + name_end, (size_t)(length - name_end)
    );
    /* The one used last is the last. */
    DO(PyDict_DelItem(copies, key));
    DO(PyDict_SetItem(copies, key, copy));
    DO(PyDict_SetItem(called, ours, name));
    DO(set(state, said->prepared, Prepared___verified, Py_None));
    done = 1;
    goto failed;
seldom:
    done = 0;
failed:
    if (done <= 0) {
        Py_CLEAR(*instead);
    }
    Py_XDECREF(named);
    Py_XDECREF(book);
    Py_XDECREF(name);
    Py_XDECREF(statement);
    Py_XDECREF(statements);
    Py_XDECREF(copies);
    Py_XDECREF(key);
    Py_XDECREF(copy);
    Py_XDECREF(body);
    Py_XDECREF(meaning);
    Py_XDECREF(ours);
    Py_XDECREF(called);
    Py_XDECREF(told);
    Py_XDECREF(describes);
    return done;
}

/* Keep a batch that may have to be said again. */
static int
keep(State *state, const Said *said)
{
    PyObject *frames = listed(said->skimmed);
    PyObject *batch = frames == NULL ? NULL : PyTuple_Pack(2, said->skimmed->run, frames);
    int done = batch == NULL ? -1 : set(state, said->talk, Following___retry, batch);
    Py_XDECREF(frames);
    Py_XDECREF(batch);
    return done;
}

/* Deal with what leaves nothing, a Query or a whole batch; 1 if that is done, 0 if it is something else. */
static int
asks_plainly(State *state, PyObject *splice, const Skimmed *skimmed)
{
    PyObject *server = NULL, *transport = NULL, *completions = NULL, *instead = NULL;
    Said said = {skimmed, NULL, NULL, NULL, NULL, NULL};
    const Frame *frame = skimmed->frames;
    long first, second;
    Part text = {0, 0};
    int done = -1;
    bool query = are(skimmed, "Q"), batch = are(skimmed, "PBDES"), named = are(skimmed, "BDES");
    if (!query && !named && !(batch && state->completion && state->types[Statement__body] && state->next_turn
          && state->harmless)) {
        return 0;
    }
    NEED(said.talk, get(state, splice, Splice___talk));
    if (Py_TYPE(said.talk) != state->following) {
        goto seldom;
    }
    UNLESS_SELDOM(is_true(state, said.talk, Following___touched));
    UNLESS_SELDOM(is_true(state, splice, Splice___blocked));
    NEED(said.prepared, get(state, said.talk, Following___prepared));
    ONLY_IF(is_true(state, said.prepared, Prepared__readable));
    if (!named) {
        ONLY_IF(is_harmless(state, skimmed, &text));
    }
    NEED(said.ledger, get(state, said.talk, Conversation__ledger));
    UNLESS_SELDOM(is_true(state, said.ledger, Ledger__batch_open));
    UNLESS_SELDOM(is_true(state, said.ledger, Ledger__copying));
    Py_ssize_t count = owed(state, said.ledger, &said.queue, &first, &second);
    DO(count);
    if (count + 1 >= MOST_OWED) {
        goto seldom;
    }
    if (!query) {
        NEED(completions, get(state, said.talk, Following___completions));
        ONLY_IF(is_empty(state, completions, Completions___owed));
    }
    NEED(server, get(state, splice, Splice___server));
    if (server == Py_None) {
        if (frame->start) {
            goto seldom;
        }
        UNLESS_SELDOM(is_true(state, splice, Splice___waiting));
        Py_DECREF(server);
        NEED(server, take(state, splice, said.talk));
        if (server == Py_None) {
            goto seldom;
        }
        int linked = link_up(state, splice, said.talk, said.prepared, said.ledger, server);
        DO(linked);
        if (!linked) {
            DO(tell(state, call__said_to, splice, server, skimmed));
            done = 1;
            goto failed;
        }
    }
    NEED(said.session, get(state, said.talk, Conversation__server));
    NEED(transport, get(state, server, ServerConnection__transport));
    if (named) {
        int again = is_true(state, said.talk, Following___again);
        DO(again);
        int bound = say_bind(state, &said, &instead);
        DO(bound);
        if (!bound) {
            DO(tell(state, call__said, splice, NULL, skimmed));
            done = 1;
            goto failed;
        }
        bool alone = !count && !again && frame[3].stop == PyBytes_GET_SIZE(skimmed->run);
        int idle = is_status(state, said.ledger, 'I');
        DO(idle);
        DO(alone && idle ? keep(state, &said) : set(state, said.talk, Following___retry, Py_None));
    } else {
        DO(set(state, said.talk, Following___retry, Py_None));
    }
    if (named) {
        DO(set(state, said.talk, Following___again, Py_False));
    } else if (query) {
        DO(set(state, said.prepared, Prepared___unnamed, Py_None));
        DO(set(state, said.session, ServerSession__unnamed, Py_None));
    } else {
        DO(parse(state, &said, text.start));
        DO(set(state, said.talk, Following___again, Py_False));
    }
    DO(ask(state, said.ledger, said.queue, query ? 'Q' : 'S'));
    DO(set(state, said.talk, Conversation__plain, Py_True));
    DO(set(state, splice, Splice___used, Py_True));
    DO(put(state, transport, instead != NULL ? instead : skimmed->run));
    state->plain++;
    done = 1;
    goto failed;
seldom:
    done = 0;
failed:
    Py_XDECREF(server);
    Py_XDECREF(transport);
    Py_XDECREF(completions);
    Py_XDECREF(instead);
    Py_XDECREF(said.talk);
    Py_XDECREF(said.prepared);
    Py_XDECREF(said.ledger);
    Py_XDECREF(said.queue);
    Py_XDECREF(said.session);
    return done;
}

static PyObject *
Splice_from_client(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    PyObject *splice, *skim;
    Skimmed skimmed;
    if (count != 2) {
        return in_python(state, Splice__from_client, arguments, count);
    }
    splice = arguments[0];
    int leaving = is_true(state, splice, Splice___leaving);
    if (leaving) {
        return leaving < 0 ? NULL : Py_NewRef(Py_None);
    }
    skim = get(state, splice, Splice___skim);
    if (skim == NULL) {
        return NULL;
    }
    int done = cut(state, skim, arguments[1], &skimmed);
    if (done > 0) {
        done = enter(state, skim, &skimmed) < 0 ? -1 : asks_plainly(state, splice, &skimmed);
        if (done == 0) {
            done = tell(state, call__said, splice, NULL, &skimmed);
        }
        forget(&skimmed);
    } else if (done == 0) {
        done = ignore(in_python(state, Splice__from_client, arguments, count));
    }
    Py_DECREF(skim);
    return done < 0 ? NULL : Py_NewRef(Py_None);
}

/* Let a server go that owes nothing, and whose client has not been anything but quiet. */
static int
let_go(State *state, PyObject *splice, PyObject *talk, PyObject *server, PyObject *skim)
{
    PyObject *client = NULL, *transport = NULL, *lender = NULL;
    int done = -1;
    ONLY_IF(is_true(state, talk, Conversation__lets_go));
    UNLESS_SELDOM(is_true(state, server, ServerConnection__cancels));
    UNLESS_SELDOM(is_true(state, server, ServerConnection__cancel_in_doubt));
    if (state->from_server == NULL) {
        goto seldom;
    }
    ONLY_IF(is(state, skim, Skimmer__direction, state->from_server));
    NEED(client, get(state, splice, Splice___client));
    NEED(transport, get(state, server, ServerConnection__transport));
    NEED(lender, get(state, splice, Splice___lender));
    DO(set(state, splice, Splice___server, Py_None));
    DO(uncouple(state, client, transport));
    DO(set(state, talk, Conversation__server, Py_None));
    done = ignore(PyObject_CallMethodOneArg(lender, state->calls[call_hand_on], server));
    goto failed;
seldom:
    /* Something may be asked of the server, or the server may wait for something. */
    state->plain--;
    done = ignore(PyObject_CallMethodNoArgs(splice, state->calls[call__go_on]));
failed:
    Py_XDECREF(client);
    Py_XDECREF(transport);
    Py_XDECREF(lender);
    return done;
}

/* Whether nothing is in the way of going on as always: `Splice._is_routine`. */
static int
is_routine(State *state, PyObject *splice)
{
    ONLY_IF(is(state, splice, Splice___asked_since, Py_None));
    ONLY_IF(is(state, splice, Splice___cancel_wanted, Py_None));
    UNLESS_SELDOM(is_true(state, splice, Splice___blocked));
    UNLESS_SELDOM(is_true(state, splice, Splice___unfinished));
    UNLESS_SELDOM(is_true(state, splice, Splice___overdrawn));
    return 1;
seldom:
    return 0;
failed:
    return -1;
}

/* Whether a server that has no more to say owes nothing else: `Ledger.settled`. */
static int
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

/* Whether the one completion that is owed is that of a Parse of the client's; gives the queue. */
static int
is_clients_parse(State *state, PyObject *completions, PyObject **queue)
{
    PyObject *one = NULL;
    int answer = 0;
    NEED(*queue, get(state, completions, Completions___owed));
    Py_ssize_t size = PyObject_Size(*queue);
    DO(size);
    if (size != 1 || state->completion == NULL) {
        return 0;
    }
    NEED(one, PySequence_GetItem(*queue, 0));
    if (Py_TYPE(one) == state->completion && PyTuple_GET_SIZE(one) == 5) {
        long tag = PyLong_AsLong(PyTuple_GET_ITEM(one, 0));
        answer = tag == '1' && PyTuple_GET_ITEM(one, 4) != Py_None;
    }
    Py_DECREF(one);
    return answer;
failed:
    return -1;
}

/* Deal with rows on their way, or a ReadyForQuery behind one quiet command; 0 if it is something else. */
static int
answers_plainly(State *state, PyObject *splice, PyObject *server, PyObject *skim, const Skimmed *skimmed)
{
    PyObject *talk = NULL, *ledger = NULL, *queue = NULL, *prepared = NULL, *completions = NULL;
    PyObject *descriptions = NULL, *quiet = NULL, *tag = NULL, *client = NULL, *clients = NULL;
    PyObject *parses = NULL;
    const Frame *frame = skimmed->frames;
    const char *run = PyBytes_AS_STRING(skimmed->run);
    long first, second;
    int done = -1;
    ONLY_IF(is_routine(state, splice));
    NEED(talk, get(state, splice, Splice___talk));
    NEED(ledger, get(state, talk, Conversation__ledger));
    Py_ssize_t count = owed(state, ledger, &queue, &first, &second);
    DO(count);
    if (first == OURS) {
        goto seldom;
    }
    NEED(client, get(state, splice, Splice___client));
    if (skimmed->count) {
        bool parsed = are(skimmed, "1CZ");
        if (Py_TYPE(talk) != state->following || !(parsed || are(skimmed, "CZ")) || count == 0
            || first == COPY_END || second == COPY_END) {
            goto seldom;
        }
        frame += parsed;
        if (frame[0].stop - frame[0].start < HEADER + 3) {
            goto seldom;
        }
        UNLESS_SELDOM(is_true(state, talk, Following___touched));
        NEED(prepared, get(state, talk, Following___prepared));
        NEED(completions, get(state, talk, Following___completions));
        NEED(descriptions, get(state, prepared, Prepared__descriptions));
        ONLY_IF(is_empty(state, descriptions, Descriptions___owed));
        if (!parsed) {
            ONLY_IF(is_empty(state, completions, Completions___owed));
        } else {
            ONLY_IF(is_clients_parse(state, completions, &parses));
        }
        NEED(quiet, get(state, talk, Following___quiet));
        NEED(tag, PyBytes_FromStringAndSize(run + frame[0].start + HEADER, 3));
        ONLY_IF(PySequence_Contains(quiet, tag));
        if (parsed) {
            DO(ignore(PyObject_CallMethodNoArgs(parses, state->calls[call_popleft])));
        }
        int status = (unsigned char)run[frame[1].start + HEADER];
        DO(ready(state, ledger, queue, status));
        DO(set(state, talk, Conversation__plain, Py_True));
        int free = 0;
        if (count == 1 && status == 'I') {
            DO(free = is_settled(state, ledger));
        }
        if (free) {
            int keeps = is_true(state, splice, Splice___keeps);
            DO(keeps);
            NEED(clients, get(state, splice, Splice___skim));
            int inside = is_true(state, clients, Skimmer__left);
            DO(inside);
            free = !keeps && !inside;
        }
        if (free) {
            if (skimmed->left || PyBytes_GET_SIZE(skimmed->held)) {
                DO(set(state, splice, Splice___unfinished, Py_True));
            } else {
                DO(let_go(state, splice, talk, server, skim));
            }
        }
    }
    if (PyBytes_GET_SIZE(skimmed->run)) {
        DO(put(state, client, skimmed->run));
    }
    state->plain++;
    done = 1;
    goto failed;
seldom:
    done = 0;
failed:
    Py_XDECREF(talk);
    Py_XDECREF(ledger);
    Py_XDECREF(queue);
    Py_XDECREF(prepared);
    Py_XDECREF(completions);
    Py_XDECREF(descriptions);
    Py_XDECREF(quiet);
    Py_XDECREF(tag);
    Py_XDECREF(client);
    Py_XDECREF(clients);
    Py_XDECREF(parses);
    return done;
}

static PyObject *
Splice__from_server_(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    PyObject *splice, *server, *skim = NULL;
    Skimmed skimmed;
    if (count != 2) {
        return in_python(state, Splice___from_server, arguments, count);
    }
    splice = arguments[0];
    server = get(state, splice, Splice___server);
    if (server == NULL || server == Py_None) {
        Py_XDECREF(server);
        return in_python(state, Splice___from_server, arguments, count);
    }
    skim = get(state, server, ServerConnection__skim);
    int done = skim == NULL ? -1 : cut(state, skim, arguments[1], &skimmed);
    if (done > 0) {
        done = enter(state, skim, &skimmed) < 0 ? -1
                                                : answers_plainly(state, splice, server, skim, &skimmed);
        if (done == 0) {
            done = tell(state, call__heard, splice, server, &skimmed);
        }
        forget(&skimmed);
    } else if (done == 0) {
        done = ignore(in_python(state, Splice___from_server, arguments, count));
    }
    Py_XDECREF(skim);
    Py_DECREF(server);
    return done < 0 ? NULL : Py_NewRef(Py_None);
}

/* The reactor: link/reactor.py. */

/* Deal with one event. */
static int
dispatch(State *state, PyObject *reactor, PyObject *selectable, PyObject *number, uint32_t event)
{
    if (event != EPOLLIN || Py_TYPE(selectable) != state->stream) {
        PyObject *events = PyLong_FromUnsignedLong(event);
        if (events == NULL) {
            return -1;
        }
        PyObject *all[] = {reactor, selectable, number, events};
        int done = ignore(PyObject_VectorcallMethod(state->calls[call__dispatch], all, 4, NULL));
        Py_DECREF(events);
        return done;
    }
    PyObject *read = get(state, selectable, Stream__doRead);
    if (read == NULL) {
        return -1;
    }
    PyObject *why = PyObject_CallNoArgs(read);
    Py_DECREF(read);
    if (why == Py_None) {
        Py_DECREF(why);
        return 0;
    }
    int done;
    if (why == NULL) {
        PyObject *type, *error, *traceback;
        PyErr_Fetch(&type, &error, &traceback);
        PyErr_NormalizeException(&type, &error, &traceback);
        if (traceback != NULL) {
            PyException_SetTraceback(error, traceback);
        }
        PyObject *all[] = {reactor, selectable, error};
        done = ignore(PyObject_VectorcallMethod(state->calls[call__broke], all, 3, NULL));
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(traceback);
    } else {
        PyObject *all[] = {reactor, selectable, why, Py_True};
        done = ignore(PyObject_VectorcallMethod(state->calls[call__disconnectSelectable], all, 4, NULL));
        Py_DECREF(why);
    }
    return done;
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

/* Wait for events and deal with them; 1 if nothing but plain messages came, and at least one. */
static int
turn(State *state, PyObject *reactor, PyObject *selectables, int descriptor, int timeout)
{
    struct epoll_event events[EVENTS];
    unsigned long before = state->plain;
    int many;
    Py_BEGIN_ALLOW_THREADS
    many = epoll_wait(descriptor, events, EVENTS, timeout);
    Py_END_ALLOW_THREADS
    if (many < 0) {
        if (errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        return PyErr_CheckSignals();
    }
    for (int at = 0; at < many; at++) {
        PyObject *number = PyLong_FromLong(events[at].data.fd);
        PyObject *selectable = number == NULL ? NULL : PyObject_GetItem(selectables, number);
        int done = 0;
        if (selectable != NULL) {
            done = dispatch(state, reactor, selectable, number, events[at].events);
            Py_DECREF(selectable);
        } else if (number != NULL && PyErr_ExceptionMatches(PyExc_KeyError)) {
            /* It was closed by what an earlier event has led to. */
            PyErr_Clear();
        } else {
            done = -1;
        }
        Py_XDECREF(number);
        if (done < 0) {
            return -1;
        }
    }
    return many && state->plain - before == (unsigned long)many;
}

static PyObject *
DirectReactor_doPoll(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    PyObject *reactor, *poller = NULL, *selectables = NULL, *number = NULL;
    double seconds = LONGEST_TURN;
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
        seconds = seconds < 0 ? 0 : seconds > LONGEST_TURN ? LONGEST_TURN : seconds;
    }
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    long whole = (long)seconds;
    end.tv_sec += whole;
    end.tv_nsec += (long)((seconds - (double)whole) * 1e9);
    NEED(poller, get(state, reactor, DirectReactor___poller));
    NEED(selectables, get(state, reactor, DirectReactor___selectables));
    NEED(number, PyObject_CallMethodNoArgs(poller, state->calls[call_fileno]));
    int descriptor = (int)PyLong_AsLong(number);
    if (descriptor == -1 && PyErr_Occurred()) {
        goto failed;
    }
    /* Nobody but the plain has called anything, so nothing has become due; but it may have been scheduled. */
    int plain, left;
    do {
        left = milliseconds_until(&end);
        DO(plain = turn(state, reactor, selectables, descriptor, left));
        if (plain) {
            DO(plain = is_empty(state, reactor, DirectReactor___newTimedCalls));
        }
    } while (plain && left);
    done = 0;
failed:
    Py_XDECREF(poller);
    Py_XDECREF(selectables);
    Py_XDECREF(number);
    return done < 0 ? NULL : Py_NewRef(Py_None);
}

/* The module. */

typedef PyObject *(*Method)(PyObject *, PyObject *const *, Py_ssize_t);
#define DEFINE(class, name) {#name, (PyCFunction)(void (*)(void))class##_##name, METH_FASTCALL, NULL},
#define Splice__from_server Splice__from_server_
static PyMethodDef methods[] = {METHODS(DEFINE)};
#undef Splice__from_server
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
    } else if (strcmp(name, "Following") == 0) {
        Py_XSETREF(state->following, (PyTypeObject *)Py_NewRef(class));
    } else if (strcmp(name, "Completion") == 0 && PyType_IsSubtype(type, &PyTuple_Type)) {
        Py_XSETREF(state->completion, (PyTypeObject *)Py_NewRef(class));
    }
    return Py_NewRef(class);
}

static PyObject *
know(PyObject *module, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"words", "quiet", "from_server", "harmless", "next_turn", NULL};
    State *state = state_of(module);
    PyObject *words = NULL, *quiet = NULL, *from_server = NULL, *harmless = NULL, *next_turn = NULL;
    if (!PyArg_ParseTupleAndKeywords(
            arguments, keywords, "|$O!O!OOO", names, &PyFrozenSet_Type, &words, &PyFrozenSet_Type, &quiet,
            &from_server, &harmless, &next_turn
        )) {
        return NULL;
    }
    PyObject *const given[] = {words, quiet, from_server, harmless, next_turn};
    PyObject **const places[] = {
        &state->words, &state->quiet, &state->from_server, &state->harmless, &state->next_turn,
    };
    for (size_t at = 0; at < Py_ARRAY_LENGTH(given); at++) {
        if (given[at] != NULL) {
            PyObject *old = *places[at];
            *places[at] = Py_NewRef(given[at]);
            Py_XDECREF(old);
        }
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
        "{sOsOsksisisisisisisisi}", "unknown", unknown, "replaced", replaced, "plain", state->plain, "HEADER",
        HEADER, "READ_SIZE", READ_SIZE, "FULL_TLS_RECORD", FULL_RECORD, "MOST_OWED", MOST_OWED, "CACHED_TEXT",
        CACHED_TEXT, "TEXT_LOOK", TEXT_LOOK, "LONGEST_NAME", LONGEST_NAME, "MOST_CALLED", MOST_CALLED
    );
failed:
    Py_XDECREF(unknown);
    Py_XDECREF(replaced);
    return result;
}

static PyMethodDef functions[] = {
    {"look", look, METH_NOARGS, "Tell tests what is here."},
    {"quicken", quicken, METH_O, "Give a class the methods that are here; learn where its slots are."},
    {"know", (PyCFunction)(void (*)(void))know, METH_VARARGS | METH_KEYWORDS, "Take what is compared with."},
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
    state->empty = PyBytes_FromStringAndSize(NULL, 0);
    state->full_record = PyLong_FromLong(FULL_RECORD);
    return state->empty == NULL || state->full_record == NULL ? -1 : 0;
}

static int
traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = state_of(module);
    for (size_t which = 0; which < ATTRIBUTES_END; which++) {
        Py_VISIT(state->types[which]);
    }
    for (size_t which = 0; which < METHODS_END; which++) {
        Py_VISIT(state->in_python[which]);
    }
    Py_VISIT(state->stream);
    Py_VISIT(state->following);
    Py_VISIT(state->completion);
    Py_VISIT(state->harmless);
    Py_VISIT(state->next_turn);
    Py_VISIT(state->words);
    Py_VISIT(state->quiet);
    Py_VISIT(state->from_server);
    return 0;
}

static int
clear(PyObject *module)
{
    State *state = state_of(module);
    for (size_t which = 0; which < ATTRIBUTES_END; which++) {
        Py_CLEAR(state->names[which]);
        Py_CLEAR(state->types[which]);
    }
    for (size_t which = 0; which < METHODS_END; which++) {
        Py_CLEAR(state->in_python[which]);
    }
    for (size_t which = 0; which < CALLS_END; which++) {
        Py_CLEAR(state->calls[which]);
    }
    Py_CLEAR(state->stream);
    Py_CLEAR(state->following);
    Py_CLEAR(state->empty);
    Py_CLEAR(state->full_record);
    Py_CLEAR(state->completion);
    Py_CLEAR(state->harmless);
    Py_CLEAR(state->next_turn);
    Py_CLEAR(state->words);
    Py_CLEAR(state->quiet);
    Py_CLEAR(state->from_server);
    return 0;
}

static void
end(void *module)
{
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
