/*
 * link/splice.py, link/lender.py, link/target.py, pool/pools.py: a client that waits behind others, and is linked to
 * the server that another hands on.
 */

#include "twin.h"

/* `function()`, where that gives a float. */
static int
call_for_seconds(PyObject *function, PyObject **seconds)
{
    *seconds = PyObject_CallNoArgs(function);
    if (*seconds == NULL) {
        return -1;
    }
    return PyFloat_CheckExact(*seconds);
}

static inline int
add_to(State *state, PyObject *object, enum attribute which, Py_ssize_t more)
{
    Py_ssize_t number;
    return get_number(state, object, which, &number) < 0 ? -1 : set_number(state, object, which, number + more);
}

/* Whether servers work for a lane, and none is on its way for who comes: `Lane.missing`, `Lane.working`. */
static int
is_in_vain(State *state, PyObject *lane, Py_ssize_t waiting)
{
    PyObject *accounts = NULL;
    Py_ssize_t count, opening, closing, promised;
    int answer = -1;
    NEED(accounts, get(state, lane, Lane__accounts));
    if (!PyTuple_CheckExact(accounts) || !PyTuple_GET_SIZE(accounts)) {
        goto seldom;
    }
    PyObject *own = PyTuple_GET_ITEM(accounts, 0);
    DO(get_number(state, own, Account__count, &count));
    DO(get_number(state, own, Account__opening, &opening));
    DO(get_number(state, own, Account__closing, &closing));
    DO(get_number(state, own, Account__promised, &promised));
    answer = waiting - opening - promised > 0 && count - opening - closing > 0;
    goto failed;
seldom:
    answer = 0;
failed:
    Py_XDECREF(accounts);
    return answer;
}

/* Put a client at the end of a queue: `Pools._queue`; 0 where somebody in it may have waited for less long. */
static int
queue_last(State *state, PyObject *lane, PyObject *waiters, PyObject *splice, PyObject *settings, PyObject *since)
{
    PyTypeObject *type = state->types[Waiter__client];
    PyObject *latest = NULL, *waiter = NULL;
    int done = -1;
    NEED(latest, get(state, lane, Lane__latest));
    if (!PyFloat_CheckExact(latest) || PyFloat_AS_DOUBLE(since) < PyFloat_AS_DOUBLE(latest)) {
        goto seldom;
    }
    NEED(waiter, type->tp_alloc(type, 0));
    DO(set(state, waiter, Waiter__client, splice));
    DO(set(state, waiter, Waiter__since, since));
    DO(set(state, waiter, Waiter__settings, settings));
    DO(set(state, waiter, Waiter__home, Py_None));
    DO(PyODict_SetItem(waiters, splice, waiter));
    DO(set(state, lane, Lane__latest, since));
    done = 1;
    goto failed;
seldom:
    done = 0;
failed:
    Py_XDECREF(latest);
    Py_XDECREF(waiter);
    return done;
}

/* Hold what a client has said that waits, which had nothing held: `Splice._wait_with`. */
static int
hold(State *state, PyObject *splice, PyObject *held, PyObject *terms, const Skimmed *skimmed)
{
    PyObject *frames = NULL, *one = NULL, *client = NULL;
    Py_ssize_t most, size = PyBytes_GET_SIZE(skimmed->run);
    int done = -1;
    NEED(frames, listed(skimmed));
    NEED(one, PyTuple_Pack(2, skimmed->run, frames));
    DO(PyList_Append(held, one));
    DO(set_number(state, splice, Splice___held_size, size));
    DO(get_number(state, terms, Terms__buffer_limit, &most));
    if (size > most) {
        NEED(client, get(state, splice, Splice___client));
        DO(ignore(call_python_with(state, call_pauseProducing, client, NULL)));
    }
    done = 0;
failed:
    Py_XDECREF(frames);
    Py_XDECREF(one);
    Py_XDECREF(client);
    return done;
}

/* Tell the other workers that there was something in the queue of a target, if there are any. */
static int
tell_elsewhere(State *state, PyObject *target)
{
    PyObject *elsewhere = get(state, target, TargetPools__elsewhere);
    int done = elsewhere == NULL ? -1 : 0;
    if (elsewhere != NULL && elsewhere != Py_None) {
        done = ignore(call_python_with(state, call_changed, elsewhere, target));
    }
    Py_XDECREF(elsewhere);
    return done;
}

/*
 * Have a client that has no server wait behind others, for whom all that can be done is done, with what it has said;
 * 0 where more is to be done: `Splice._wait_with`, `ServerLender.borrow`, `TargetPools.stand_in_line`.
 */
int
stand_in_line(State *state, PyObject *splice, const Skimmed *skimmed)
{
    PyObject *lender = NULL, *terms = NULL, *parameters = NULL, *talk = NULL, *settings = NULL;
    PyObject *sequences = NULL, *held = NULL, *target = NULL, *pool = NULL, *lane = NULL, *waiters = NULL;
    PyObject *clock = NULL, *now = NULL, *targets_clock = NULL, *since = NULL, *watch = NULL;
    Py_ssize_t waiting, most;
    int done = -1;
    NEED(lender, get(state, splice, Splice___lender));
    if (!is_a(state, lender, ServerLender___pool) || state->types[Waiter__client] == NULL) {
        goto seldom;
    }
    ONLY_IF(is(state, lender, ServerLender___dismissed, Py_None));
    NEED(target, get(state, lender, ServerLender___target));
    NEED(pool, get(state, lender, ServerLender___pool));
    if (!is_a(state, target, TargetPools___busy)) {
        goto seldom;
    }
    UNLESS_SELDOM(is(state, target, TargetPools___timer, Py_None));
    NEED(terms, get(state, splice, Splice___terms));
    NEED(parameters, get(state, terms, Terms__parameters));
    ONLY_IF(last_lane(state, pool, parameters, &lane));
    NEED(talk, get(state, splice, Splice___talk));
    NEED(settings, get(state, talk, Conversation__settings));
    NEED(sequences, get(state, talk, Following___sequences));
    ONLY_IF(is(state, sequences, Sequences__home, Py_None));
    NEED(held, get(state, splice, Splice___held));
    NEED(waiters, get(state, lane, Lane__waiters));
    if (!PyList_CheckExact(held) || PyList_GET_SIZE(held) || !PyODict_CheckExact(waiters)) {
        goto seldom;
    }
    ONLY_IF(is_in_vain(state, lane, PyDict_GET_SIZE(waiters)));
    DO(get_number(state, pool, Pool__waiting, &waiting));
    DO(get_number(state, pool, Pool__most_waiting, &most));
    if (waiting >= most) {
        goto seldom;
    }
    UNLESS_SELDOM(PyDict_Contains(waiters, splice));
    NEED(clock, get(state, splice, Splice___seconds));
    NEED(targets_clock, get(state, target, TargetPools___seconds));
    ONLY_IF(call_for_seconds(clock, &now));
    if (targets_clock == clock) {
        since = Py_NewRef(now);
    } else {
        ONLY_IF(call_for_seconds(targets_clock, &since));
    }
    NEED(watch, get(state, splice, Splice___watch));
    ONLY_IF(queue_last(state, lane, waiters, splice, settings, since));
    DO(set_number(state, pool, Pool__waiting, waiting + 1));
    DO(set(state, splice, Splice___waiting, Py_True));
    DO(set(state, splice, Splice___waiting_since, now));
    DO(set(state, watch, Watch__due, state->zero));
    DO(hold(state, splice, held, terms, skimmed));
    DO(tell_elsewhere(state, target));
    state->plain++;
    done = 1;
    goto failed;
seldom:
    done = 0;
failed:
    Py_XDECREF(lender);
    Py_XDECREF(terms);
    Py_XDECREF(parameters);
    Py_XDECREF(talk);
    Py_XDECREF(settings);
    Py_XDECREF(sequences);
    Py_XDECREF(held);
    Py_XDECREF(target);
    Py_XDECREF(pool);
    Py_XDECREF(lane);
    Py_XDECREF(waiters);
    Py_XDECREF(clock);
    Py_XDECREF(now);
    Py_XDECREF(targets_clock);
    Py_XDECREF(since);
    Py_XDECREF(watch);
    return done;
}

/* `histogram.add(seconds)` */
static int
add_time(State *state, PyObject *histogram, double seconds)
{
    PyObject *counts = NULL, *sum = NULL, *number = NULL;
    Py_ssize_t at = 0, count;
    int done = -1;
    seconds = seconds > 0 ? seconds : 0;
    while (at < state->bounds_end && state->bounds[at] < seconds) {
        at++;
    }
    NEED(counts, get(state, histogram, Histogram__counts));
    NEED(number, PySequence_GetItem(counts, at));
    count = PyLong_AsSsize_t(number);
    if (count == -1 && PyErr_Occurred()) {
        goto failed;
    }
    Py_SETREF(number, PyLong_FromSsize_t(count + 1));
    DO(number == NULL ? -1 : PySequence_SetItem(counts, at, number));
    NEED(sum, get(state, histogram, Histogram__seconds));
    seconds += PyFloat_AsDouble(sum);
    Py_SETREF(sum, PyErr_Occurred() ? NULL : PyFloat_FromDouble(seconds));
    DO(sum == NULL ? -1 : set(state, histogram, Histogram__seconds, sum));
    done = 0;
failed:
    Py_XDECREF(counts);
    Py_XDECREF(sum);
    Py_XDECREF(number);
    return done;
}

/* Whether none of the accounts of a lane has more servers than it may: `Account.over`. */
static int
is_within(State *state, PyObject *lane)
{
    Py_ssize_t count, closing, most;
    PyObject *accounts = get(state, lane, Lane__accounts);
    int answer = -1;
    if (accounts == NULL) {
        return -1;
    }
    if (!PyTuple_CheckExact(accounts)) {
        goto seldom;
    }
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(accounts); at++) {
        PyObject *account = PyTuple_GET_ITEM(accounts, at);
        DO(get_number(state, account, Account__count, &count));
        DO(get_number(state, account, Account__closing, &closing));
        DO(get_number(state, account, Account__most, &most));
        if (count - closing > most) {
            goto seldom;
        }
    }
    answer = 1;
    goto failed;
seldom:
    answer = 0;
failed:
    Py_DECREF(accounts);
    return answer;
}

/* The first in a queue behind whom others wait, if it is a client that is read, and wants no more than a server. */
static int
first_in_line(State *state, PyObject *waiters, PyObject **splice)
{
    PyObject *all = NULL, *client = NULL;
    int answer = -1;
    if (!PyODict_CheckExact(waiters) || PyDict_GET_SIZE(waiters) < 2) {
        return 0;
    }
    NEED(all, PyObject_GetIter(waiters));
    NEED(*splice, PyIter_Next(all));
    if (!is_a(state, *splice, Splice___held)) {
        goto seldom;
    }
    ONLY_IF(is(state, *splice, Splice___first, Py_None));
    NEED(client, get(state, *splice, Splice___client));
    if (!is_a(state, client, Stream___reading)) {
        goto seldom;
    }
    answer = is_true(state, client, Stream___reading);
    goto failed;
seldom:
    answer = 0;
failed:
    Py_XDECREF(all);
    Py_XDECREF(client);
    return answer;
}

/* `target.link(client, server)`, where the target does nothing else. */
static int
link_in_target(State *state, PyObject *target, PyObject *todo, PyObject *splice, PyObject *server)
{
    if (set(state, target, TargetPools___busy, Py_True) < 0) {
        return -1;
    }
    int done = serve_held(state, splice, server);
    if (done == 0) {
        done = ignore(call_python_with(state, call__serve, splice, server));
    }
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    int free = set(state, target, TargetPools___busy, Py_False);
    if (done < 0) {
        PyErr_Restore(type, error, traceback);
        return -1;
    }
    Py_ssize_t left = free < 0 ? -1 : PyObject_Size(todo);
    if (left > 0) {
        PyObject *nothing = PyTuple_New(0);
        done = nothing == NULL ? -1 : ignore(call_python_with(state, call_do, target, nothing));
        Py_XDECREF(nothing);
        return done;
    }
    return left < 0 ? -1 : tell_elsewhere(state, target);
}

/*
 * Give a server that is clean to the client that has waited longest, where nobody else could want it; 0 where more is
 * to be done: `ServerLender.hand_on`, `Pools.pass_on`, `Splice.linked`.
 */
int
pass_on(State *state, PyObject *lender, PyObject *server, const Returned *given, bool contested)
{
    PyObject *hungry = NULL, *target = NULL, *waiters = NULL, *splice = NULL, *waits = NULL, *turns = NULL;
    PyObject *todo = NULL, *clock = NULL, *now = NULL, *since = NULL;
    Py_ssize_t count, due, turn, waiting;
    int done = -1;
    ONLY_IF(is(state, lender, ServerLender___pool, given->pool));
    NEED(hungry, get(state, given->pools, Pools___hungry));
    NEED(waiters, get(state, given->lane, Lane__waiters));
    DO(get_number(state, given->pool, Pool__waiting, &waiting));
    if (!PyDict_CheckExact(hungry) || !PyODict_CheckExact(waiters)) {
        goto seldom;
    }
    if (PyDict_GET_SIZE(hungry) != 1 && (contested || waiting != PyDict_GET_SIZE(waiters))) {
        goto seldom;
    }
    ONLY_IF(is_within(state, given->lane));
    NEED(target, get(state, lender, ServerLender___target));
    if (!is_a(state, target, TargetPools___busy)) {
        goto seldom;
    }
    UNLESS_SELDOM(is_true(state, target, TargetPools___busy));
    NEED(todo, get(state, target, TargetPools___todo));
    NEED(waits, get(state, lender, ServerLender___waits));
    NEED(turns, get(state, lender, ServerLender__turns));
    DO(get_number(state, turns, Turns__count, &count));
    DO(get_number(state, turns, Turns__due, &due));
    if (!is_a(state, waits, Histogram__counts) || count + 1 >= due) {
        goto seldom;
    }
    ONLY_IF(first_in_line(state, waiters, &splice));
    NEED(clock, get(state, splice, Splice___seconds));
    NEED(since, get(state, splice, Splice___waiting_since));
    ONLY_IF(call_for_seconds(clock, &now));
    ONLY_IF(PyFloat_CheckExact(since));
    DO(get_number(state, given->pools, Pools__turns, &turn));
    DO(PyODict_DelItem(waiters, splice));
    DO(add_to(state, given->pool, Pool__waiting, -1));
    DO(add_one(state, given->pools, Pools__turns));
    DO(set_number(state, given->record, Server__turn, turn + 1));
    DO(set(state, server, ServerConnection__borrower, splice));
    DO(add_one(state, turns, Turns__count));
    DO(add_time(state, waits, PyFloat_AS_DOUBLE(now) - PyFloat_AS_DOUBLE(since)));
    DO(set(state, splice, Splice___waiting, Py_False));
    DO(set(state, splice, Splice___sample, Py_None));
    DO(link_in_target(state, target, todo, splice, server));
    done = 1;
    goto failed;
seldom:
    done = 0;
failed:
    Py_XDECREF(target);
    Py_XDECREF(hungry);
    Py_XDECREF(waiters);
    Py_XDECREF(splice);
    Py_XDECREF(waits);
    Py_XDECREF(turns);
    Py_XDECREF(todo);
    Py_XDECREF(clock);
    Py_XDECREF(now);
    Py_XDECREF(since);
    return done;
}
