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

#ifndef PGPROXY_TWIN_H
#define PGPROXY_TWIN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "ring.h"

enum { HEADER = 5, READ_SIZE = 64 * 1024, FULL_RECORD = 16 * 1024, EVENTS = 256, MOST_OWED = 10000 };
enum { CACHED_TEXT = 2048, TEXT_LOOK = 16 * 1024, MOST_FRAMES = 32 };
enum { COPY_END = 0, OURS = 1, COPY_END_OF_BATCH = 2, LONGEST_NAME = 63, MOST_CALLED = 2000, MOST_KEPT = 4096 };
/* How a command tag begins: as many bytes of it are looked at. */
enum { LONGEST_PLAIN = 16, TAG_LOOK = 3, MOST_QUIET = 64, MOST_BOUNDS = 64 };

/* The attributes that are looked at: the class that has them as slots, and their names. */
#define ATTRIBUTES(X)                                                                                       \
    X(Skimmer, held) X(Skimmer, direction) X(Skimmer, left)                                                \
    X(Direction, table)                                                                                     \
    X(Stream, _reading) X(Stream, _number) X(Stream, _producer) X(Stream, _producer_paused) X(Stream, _protocol)                \
    X(Stream, _records) X(Stream, _shut) X(Stream, _socket)  \
    X(Stream, _waiting) X(Stream, _write_failed) X(Stream, doRead) X(Stream, plain)                         \
    X(Records, _silent) X(Records, incoming) X(Records, outgoing) X(Records, said) X(Records, secrets)      \
    X(Records, since)                                                                                       \
    X(Splice, _asked_since) X(Splice, _blocked) X(Splice, _cancel_wanted) X(Splice, _client)                \
    X(Splice, _first) X(Splice, _hear) X(Splice, _held) X(Splice, _held_size) X(Splice, _keeps) X(Splice, _leaving) X(Splice, _lender) X(Splice, _overdrawn)        \
    X(Splice, _sample) X(Splice, _seconds) X(Splice, _server) X(Splice, _skim) X(Splice, _talk) X(Splice, _terms) X(Splice, _unfinished)           \
    X(Splice, _used) X(Splice, _waiting) X(Splice, _waiting_since) X(Splice, _watch) X(Watch, due)                                                                    \
    X(Terms, buffer_limit) X(Terms, parameters)                                                                                    \
    X(Conversation, ledger) X(Conversation, lets_go) X(Conversation, plain) X(Conversation, server)         \
    X(Conversation, settings) X(Conversation, told)                                                         \
    X(Following, _again) X(Following, _calm) X(Following, _completions) X(Following, _initial)              \
    X(Following, _last) X(Following, _prepared) X(Following, _quiet) X(Following, _retry)                   \
    X(Following, _sequences) X(Following, _touched)                                                         \
    X(Sequences, home)                                                                                      \
    X(Prepared, _called) X(Prepared, ledger) X(Prepared, server)   X(Prepared, _statements)                 \
    X(Prepared, unnamed)  X(Prepared, _verified) X(Prepared, descriptions) X(Prepared, meaning)             \
    X(Prepared, own_names) X(Prepared, readable) X(Prepared, scope)                                         \
    X(NamedStatements, _statements)                                                                         \
    X(Statement, body) X(Statement, description) X(Statement, meaning) X(Statement, turn)                   \
    X(Statement, verdict) X(Statement, whole)                                                               \
    X(ServerStatements, _copies) X(ServerStatements, latest)                                                \
    X(Copy, description) X(Copy, name) X(Copy, turn)                                                        \
    X(Completions, _owed) X(Completions, sole)                                                              \
    X(Descriptions, owed)                                                                                   \
    X(Ledger, answered) X(Ledger, asked) X(Ledger, batch_open) X(Ledger, copying) X(Ledger, ends)           \
    X(Ledger, irregular) X(Ledger, owed) X(Ledger, status) X(Ledger, streaming) X(Ledger, transaction)      \
    X(ServerSession, habits) X(ServerSession, initial) X(ServerSession, leftovers)                          \
    X(ServerSession, opaque) X(ServerSession, owner) X(ServerSession, reported)                             \
    X(ServerSession, reserved) X(ServerSession, sequences) X(ServerSession, settings)                       \
    X(ServerSession, statements) X(ServerSession, unnamed)                                                  \
    X(Habits, hidden) X(Habits, sequences_matter)                                                           \
    X(ClientConnection, receive)                                                                            \
    X(Server, connection) X(Server, lane) X(Server, retiring) X(Server, session) X(Server, state) X(Server, turn)                 \
    X(Lane, accounts) X(Lane, idle) X(Lane, latest) X(Lane, parameters) X(Lane, pool) X(Lane, waiters)                                        \
    X(Pool, last) X(Pool, most_waiting) X(Pool, pools) X(Pool, waiting)                                                                            \
    X(Pools, _hungry) X(Pools, contested) X(Pools, turns) \
    X(Account, closing) X(Account, count) X(Account, most) X(Account, opening) X(Account, promised) \
    X(Waiter, client) X(Waiter, home) X(Waiter, settings) X(Waiter, since) \
    X(TargetPools, _busy) X(TargetPools, _seconds) X(TargetPools, _timer) X(TargetPools, _todo) \
    X(TargetPools, elsewhere) \
    X(Histogram, counts) X(Histogram, seconds)                                                                       \
    X(ServerLender, _checks)                                                                                \
    X(ServerLender, _dismissed) X(ServerLender, _limits) X(ServerLender, _pool) X(ServerLender, _target) X(ServerLender, _waits) X(ServerLender, turns)      \
    X(Turns, count) X(Turns, due) X(Ledger, none_new)                                                       \
    X(Limits, session_mode)                                                                                 \
    X(Checks, _patience)                                                                                    \
    X(ServerConnection, _at_rest) X(ServerConnection, borrower) X(ServerConnection, cancel_in_doubt) X(ServerConnection, cancels) X(ServerConnection, receive)          \
    X(ServerConnection, record) X(ServerConnection, skim) X(ServerConnection, transport)                    \
    X(DirectReactor, _justStopped) X(DirectReactor, _newTimedCalls) X(DirectReactor, _poller) X(DirectReactor, _selectables)

#define NAME(class, name) class##__##name,
enum attribute { ATTRIBUTES(NAME) ATTRIBUTES_END };

/* The methods of ours, by class and name; and what only is called, by name. */
#define METHODS(X)                                                                                          \
    X(Skimmer, feed) X(Stream, _read_plain) X(Stream, _read_tls) X(Stream, write) X(Splice, from_client)    \
    X(Splice, _from_server) X(Splice, _serve_held) X(ServerLender, take) X(ServerLender, hand_on) X(DirectReactor, doPoll)
enum method { METHODS(NAME) METHODS_END };

#define CALLS(X)                                                                                            \
    X(_connection_ended) X(_open) X(_read_on) X(_stopped) X(_keep) X(_not_sent) X(dataReceived)                \
    X(read) X(pending)                                                                                      \
    X(write) X(couple) X(uncouple) X(_said) X(_said_to) X(_heard) X(_from_server) X(_go_on) X(take)         \
    X(hand_on) X(fileno) X(_dispatch) X(_broke)                         \
    X(_disconnectSelectable) X(_fail_writing) X(_wait_with) X(resumeProducing) X(pauseProducing) X(_serve) X(changed) X(do)
#define CALL_NAME(name) call_##name,
enum call { CALLS(CALL_NAME) CALLS_END };

/* outbox.c: what is to be sent when it is emptied; nothing is put into it unless it is open. */
typedef struct {
    bool open;
    size_t count;
    /* How many have been sent together with others. */
    unsigned long gathered;
    /* Who is told of a defect. */
    PyObject *reactor;
    PyObject *streams[MOST_SENDS], *data[MOST_SENDS];
    Send sends[MOST_SENDS];
} Outbox;

/* text.c: a text that was judged, in lower case, its digits as zeros. */
enum { JUDGED = 64, LONGEST_JUDGED = 256 };
typedef struct {
    Py_ssize_t size;
    int says;
    unsigned char text[LONGEST_JUDGED];
} Judged;

typedef struct {
    PyObject *names[ATTRIBUTES_END];
    PyTypeObject *types[ATTRIBUTES_END];
    /* Classes that are made from these: the one met last. */
    PyTypeObject *heirs[ATTRIBUTES_END];
    Py_ssize_t offsets[ATTRIBUTES_END];
    PyObject *in_python[METHODS_END];
    /* What stands in for them. */
    PyObject *own[METHODS_END];
    PyObject *calls[CALLS_END];
    PyTypeObject *stream, *port, *following;
    PyObject *harmless, *turns;
    PyObject *empty;
    /* How many messages and answers have been plain. */
    unsigned long plain;
    /* What may stand before a parenthesis in a harmless text. */
    PyObject *words;
    /* Texts judged last, by their length. */
    Judged judged[JUDGED];
    /* How the tags begin that are quiet where statements do nothing in hiding. */
    PyObject *quiet;
    /* The same as numbers. */
    uint32_t tags[MOST_QUIET];
    Py_ssize_t tags_end;
    /* What is looked at of a server that does nothing special. */
    PyObject *from_server;
    /* The states of a server. */
    PyObject *idle, *linked;
    /* Seconds: the upper ends of a histogram's ranges. */
    double bounds[MOST_BOUNDS];
    Py_ssize_t bounds_end;
    PyObject *zero;
    Outbox outbox;
    Ring ring;
} State;

static inline State *
state_of(PyObject *module)
{
    return (State *)PyModule_GetState(module);
}

/* What is plain is laid out in one piece, with what is seldom out of its way; see docs/performance.md. */
#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define SELDOM_CALLED __attribute__((cold, noinline))

/* Attributes. */

/* Whether a class is made from the one that has an attribute; it is remembered. */
SELDOM_CALLED bool is_heir(State *, PyTypeObject *, enum attribute);
/* What follows, for attributes that are no slots of a class that is known, or are not set. */
SELDOM_CALLED PyObject *get_by_name(State *, PyObject *, enum attribute);
SELDOM_CALLED int set_by_name(State *, PyObject *, enum attribute, PyObject *);
SELDOM_CALLED int set_number_anew(State *, PyObject *, enum attribute, Py_ssize_t);
SELDOM_CALLED int get_number_by_name(State *, PyObject *, enum attribute, Py_ssize_t *);
SELDOM_CALLED int is_true_by_name(State *, PyObject *, enum attribute);
SELDOM_CALLED int is_by_name(State *, PyObject *, enum attribute, const PyObject *);
SELDOM_CALLED int is_empty_by_name(State *, PyObject *, enum attribute);

static inline PyObject **
slot(State *state, PyObject *object, enum attribute which)
{
    PyTypeObject *type = Py_TYPE(object);
    if (UNLIKELY(type != state->types[which] && type != state->heirs[which])
        && !is_heir(state, type, which)) {
        return NULL;
    }
    return (PyObject **)((char *)object + state->offsets[which]);
}

/* A new reference; NULL with an exception where there is no such attribute. */
static inline PyObject *
get(State *state, PyObject *object, enum attribute which)
{
    PyObject **place = slot(state, object, which);
    if (LIKELY(place != NULL && *place != NULL)) {
        return Py_NewRef(*place);
    }
    return get_by_name(state, object, which);
}

static inline int
set(State *state, PyObject *object, enum attribute which, PyObject *value)
{
    PyObject **place = slot(state, object, which);
    if (LIKELY(place != NULL)) {
        PyObject *old = *place;
        *place = Py_NewRef(value);
        Py_XDECREF(old);
        return 0;
    }
    return set_by_name(state, object, which, value);
}

#if PY_VERSION_HEX >= 0x030C0000
#define LONG_DIGIT(number) (((PyLongObject *)(number))->long_value.ob_digit[0])
#else
#define LONG_DIGIT(number) (((PyLongObject *)(number))->ob_digit[0])
#endif

/* The value of an int that has one digit, without a call; false for any other. */
static inline bool
small(PyObject *object, Py_ssize_t *value)
{
    if (UNLIKELY(!PyLong_CheckExact(object))) {
        return false;
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (UNLIKELY(!PyUnstable_Long_IsCompact((PyLongObject *)object))) {
        return false;
    }
    *value = PyUnstable_Long_CompactValue((PyLongObject *)object);
#else
    if (UNLIKELY(Py_SIZE(object) < -1 || Py_SIZE(object) > 1)) {
        return false;
    }
    *value = Py_SIZE(object) * (Py_ssize_t)LONG_DIGIT(object);
#endif
    return true;
}

/* Set a number: in its place where nobody else can have the object. */
static inline int
set_number(State *state, PyObject *object, enum attribute which, Py_ssize_t value)
{
    PyObject **place = slot(state, object, which);
    Py_ssize_t before;
    if (LIKELY(place != NULL && *place != NULL && small(*place, &before))) {
        if (before == value) {
            return 0;
        }
        if (LIKELY(before > 0 && value > 0 && value <= PyLong_MASK && Py_REFCNT(*place) == 1)) {
            LONG_DIGIT(*place) = (digit)value;
            return 0;
        }
    }
    return set_number_anew(state, object, which, value);
}

static inline int
get_number(State *state, PyObject *object, enum attribute which, Py_ssize_t *value)
{
    PyObject **place = slot(state, object, which);
    if (LIKELY(place != NULL && *place != NULL && small(*place, value))) {
        return 0;
    }
    return get_number_by_name(state, object, which, value);
}

static inline int
add_one(State *state, PyObject *object, enum attribute which)
{
    Py_ssize_t value;
    return UNLIKELY(get_number(state, object, which, &value) < 0) ? -1
                                                                  : set_number(state, object, which, value + 1);
}

/* Whether an attribute is true; -1 with an exception. */
static inline int
is_true(State *state, PyObject *object, enum attribute which)
{
    Py_ssize_t number;
    PyObject **place = slot(state, object, which);
    if (place != NULL && (*place == Py_False || *place == Py_True)) {
        return *place == Py_True;
    }
    if (LIKELY(place != NULL && *place != NULL && small(*place, &number))) {
        return number != 0;
    }
    return is_true_by_name(state, object, which);
}

/* Whether an attribute is this very object; -1 with an exception. */
static inline int
is(State *state, PyObject *object, enum attribute which, PyObject *what)
{
    PyObject **place = slot(state, object, which);
    if (LIKELY(place != NULL && *place != NULL)) {
        return *place == what;
    }
    return is_by_name(state, object, which, what);
}

/* Errors leave by `failed`, what is not plain leaves by `seldom`. */
#define NEED(name, expression)                                                                               \
    do {                                                                                                     \
        (name) = (expression);                                                                               \
        if (UNLIKELY((name) == NULL)) {                                                                      \
            goto failed;                                                                                     \
        }                                                                                                    \
    } while (0)
#define DO(expression)                                                                                       \
    do {                                                                                                     \
        if (UNLIKELY((expression) < 0)) {                                                                    \
            goto failed;                                                                                     \
        }                                                                                                    \
    } while (0)
#define UNLESS_SELDOM(expression)                                                                            \
    do {                                                                                                     \
        int answer_ = (expression);                                                                          \
        if (UNLIKELY(answer_ < 0)) {                                                                         \
            goto failed;                                                                                     \
        }                                                                                                    \
        if (UNLIKELY(answer_)) {                                                                             \
            goto seldom;                                                                                     \
        }                                                                                                    \
    } while (0)
#define ONLY_IF(expression)                                                                                  \
    do {                                                                                                     \
        int answer_ = (expression);                                                                          \
        if (UNLIKELY(answer_ < 0)) {                                                                         \
            goto failed;                                                                                     \
        }                                                                                                    \
        if (UNLIKELY(!answer_)) {                                                                            \
            goto seldom;                                                                                     \
        }                                                                                                    \
    } while (0)

/* Do what a call gives is of no interest. */
static inline int
ignore(PyObject *result)
{
    if (UNLIKELY(result == NULL)) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

/* outbox.c */
bool outbox_is_in_the_way(const Outbox *, const PyObject *stream);
int post(State *, PyObject *stream, int descriptor, PyObject *data);
int empty_outbox(State *);

/* Call what may be in Python: nothing is left in the outbox, nor put into it meanwhile. */
static inline PyObject *
apply(State *state, PyObject *function, PyObject *const *arguments, Py_ssize_t count)
{
    bool open = state->outbox.open;
    if (state->outbox.count && empty_outbox(state) < 0) {
        return NULL;
    }
    state->outbox.open = false;
    PyObject *result = PyObject_Vectorcall(function, arguments, (size_t)count, NULL);
    state->outbox.open = open;
    return result;
}

/* The same for a method, by its name, of the first of the arguments. */
static inline PyObject *
call_python(State *state, enum call which, PyObject *const *arguments, Py_ssize_t count)
{
    bool open = state->outbox.open;
    if (state->outbox.count && empty_outbox(state) < 0) {
        return NULL;
    }
    state->outbox.open = false;
    PyObject *result = PyObject_VectorcallMethod(state->calls[which], arguments, (size_t)count, NULL);
    state->outbox.open = open;
    return result;
}

static inline PyObject *
call_python_with(State *state, enum call which, PyObject *object, PyObject *argument)
{
    PyObject *both[] = {object, argument};
    return call_python(state, which, both, argument == NULL ? 1 : 2);
}

static inline PyObject *
in_python(State *state, enum method which, PyObject *const *arguments, Py_ssize_t count)
{
    return apply(state, state->in_python[which], arguments, count);
}

/* The object whose method this is, if it is this one of ours: a call of it is a call of the function; or NULL. */
static inline PyObject *
self_of(State *state, PyObject *method, enum method which)
{
    return PyMethod_Check(method) && PyMethod_GET_FUNCTION(method) == state->own[which] ? PyMethod_GET_SELF(method)
                                                                                         : NULL;
}

/* A method of an object's, as reading the attribute would give it; of the class that has `of` it is `function`. */
static inline PyObject *
bound(State *state, PyObject *object, enum attribute of, PyObject *function, enum call name)
{
    if (function != NULL && Py_TYPE(object) == state->types[of]) {
        return PyMethod_New(function, object);
    }
    return PyObject_GetAttr(object, state->calls[name]);
}

/* `del queue[-1]`, of a list that is not empty. */
static inline void
drop_last(PyObject *queue)
{
    Py_ssize_t last = PyList_GET_SIZE(queue) - 1;
    PyObject *item = PyList_GET_ITEM(queue, last);
    Py_SET_SIZE(queue, last);
    Py_DECREF(item);
}

/* `del queue[0]`, of a list that may be empty. */
static inline int
drop_first(PyObject *queue)
{
    if (PyList_GET_SIZE(queue) != 1) {
        return PyList_SetSlice(queue, 0, 1, NULL);
    }
    drop_last(queue);
    return 0;
}

/* Where a message begins and ends, or what of it is there. */
typedef struct {
    Py_ssize_t start, stop;
} Frame;

typedef struct {
    PyObject *run;
    PyObject *held;
    Py_ssize_t left;
    Py_ssize_t count;
    Frame frames[MOST_FRAMES];
    /* The tag of each. */
    char tags[MOST_FRAMES];
} Skimmed;

/* Whether what was cut are messages with these tags. */
#define ARE(skimmed, all)                                                                                    \
    ((skimmed)->count == sizeof(all) - 1 && memcmp((skimmed)->tags, all, sizeof(all) - 1) == 0)

/* A length word. */
static inline uint32_t
word(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* How a command tag begins. */
static inline uint32_t
tag_number(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    return (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2];
}

/* What is said, and by whom. */
typedef struct {
    const Skimmed *skimmed;
    PyObject *talk, *prepared, *ledger, *queue, *session;

} Said;

/* A server that comes back, and what it belongs to. */
typedef struct {
    PyObject *record, *lane, *pool, *pools;
} Returned;

/* Where a part of the first message begins and ends that is read. */
typedef struct {
    Py_ssize_t start, stop;
    /* Whether it is that of the client's unnamed statement, word for word. */
    bool same;
} Part;

/* Whether there is nothing in what an attribute is; -1 with an exception. */
static inline int
is_empty(State *state, PyObject *object, enum attribute which)
{
    PyObject **place = slot(state, object, which);
    if (place != NULL && *place != NULL && PyList_CheckExact(*place)) {
        return !PyList_GET_SIZE(*place);
    }
    if (LIKELY(place != NULL && *place != NULL && PyODict_CheckExact(*place))) {
        return !PyDict_GET_SIZE(*place);
    }
    return is_empty_by_name(state, object, which);
}

/* wire/skim.py: skim.c. */
int cut(State *, PyObject *skimmer, PyObject *data, Skimmed *);
int enter(State *, PyObject *skimmer, const Skimmed *);
PyObject *listed(const Skimmed *);
void forget(Skimmed *);

/* link/splice.py: link.c. */
PyObject *from_client(State *, PyObject *splice, PyObject *data);
PyObject *from_server(State *, PyObject *splice, PyObject *data);
int serve_held(State *, PyObject *splice, PyObject *server);

/* link/reactor.py: reactor.c. */
int broke(State *, PyObject *reactor, PyObject *selectable);

/* link/transport.py: stream.c. */
PyObject *read_plain(State *, PyObject *stream);
PyObject *read_tls(State *, PyObject *stream);
int put(State *, PyObject *stream, PyObject *data);
int couple(State *, PyObject *stream, PyObject *other);
int uncouple(State *, PyObject *stream, PyObject *other);

/* link/lender.py: lender.c. */
PyObject *lend(State *, PyObject *const *all);
int take_back(State *, PyObject *lender, PyObject *server);

int last_lane(State *, PyObject *pool, PyObject *parameters, PyObject **lane);
bool is_a(State *, PyObject *object, enum attribute which);

/* link/splice.py, pool/pools.py: queue.c. */
int stand_in_line(State *, PyObject *splice, const Skimmed *);
int pass_on(State *, PyObject *lender, PyObject *server, const Returned *, bool contested);

/* session/suspicion.py: text.c. */
enum { NOTHING_SAID, SAYS_HARMLESS, SAYS_WRITES };
int quick(State *, const char *text, Py_ssize_t size);

/* session/ledger.py: ledger.c. */
Py_ssize_t owed(State *, PyObject *ledger, PyObject **queue, Py_ssize_t *first, Py_ssize_t *second);
int ask(State *, PyObject *ledger, PyObject *queue, int tag);
int ready(State *, PyObject *ledger, PyObject *queue, int status);
int is_settled(State *, PyObject *ledger);
int is_status(State *, PyObject *ledger, int status);

/* session/prepared.py: prepared.c. */
int is_harmless(State *, PyObject *prepared, const Skimmed *, Part *text);
int parse(State *, const Said *, Part text);
int count_binds(const Skimmed *);
int say_binds(State *, const Said *, PyObject **instead);
int owes_completions(State *, PyObject *completions);
int is_clients_parse(State *, PyObject *completions);

/* What stands in for methods: METHODS. */
#define DECLARE(class, name) PyObject *class##_##name(PyObject *module, PyObject *const *, Py_ssize_t);
METHODS(DECLARE)
PyObject *quick_says(PyObject *module, PyObject *text);

#endif
