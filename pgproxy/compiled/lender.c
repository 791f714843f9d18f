/* link/lender.py, pool/lane.py: a server that is idle is lent, and taken back, while nobody waits anywhere. */

#include "twin.h"

/* Whether an object is of a class that we know, not of one made from it. */
bool
is_a(State *state, PyObject *object, enum attribute which)
{
    return state->types[which] != NULL && Py_TYPE(object) == state->types[which];
}

/* The lane of a pool that was asked for last, if its parameters are these; 0 if it is another. */
int
last_lane(State *state, PyObject *pool, PyObject *parameters, PyObject **lane)
{
    NEED(*lane, get(state, pool, Pool__last));
    if (*lane == Py_None) {
        goto seldom;
    }
    ONLY_IF(is(state, *lane, Lane__parameters, parameters));
    return 1;
seldom:
    return 0;
failed:
    return -1;
}

/*
 * Lend the server used last, where the client wants no other, or none, where somebody waits already; 0 where that is
 * to be looked for.
 */
static int
take(State *state, PyObject *const *all, PyObject **server)
{
    PyObject *lender = all[0], *client = all[1], *parameters = all[2], *settings = all[3], *home = all[4];
    PyObject *pool = NULL, *lane = NULL, *idle = NULL, *record = NULL, *session = NULL;
    PyObject *turns = NULL;
    Py_ssize_t count, due;
    int done = -1;
    if (home != Py_None || state->idle == NULL || !is_a(state, lender, ServerLender___pool)) {
        goto seldom;
    }
    ONLY_IF(is(state, lender, ServerLender___dismissed, Py_None));
    NEED(pool, get(state, lender, ServerLender___pool));
    ONLY_IF(last_lane(state, pool, parameters, &lane));
    NEED(idle, get(state, lane, Lane__idle));
    if (!PyList_CheckExact(idle)) {
        goto seldom;
    }
    int alone = is_empty(state, lane, Lane__waiters);
    DO(alone);
    if (!alone || !PyList_GET_SIZE(idle)) {
        *server = Py_NewRef(Py_None);
        done = 1;
        goto failed;
    }
    Py_ssize_t last = PyList_GET_SIZE(idle) - 1;
    record = Py_NewRef(PyList_GET_ITEM(idle, last));
    ONLY_IF(is(state, record, Server__state, state->idle));
    NEED(session, get(state, record, Server__session));
    ONLY_IF(is(state, session, ServerSession__settings, settings));
    ONLY_IF(is(state, session, ServerSession__reserved, Py_None));
    NEED(turns, get(state, lender, ServerLender__turns));
    DO(get_number(state, turns, Turns__count, &count));
    DO(get_number(state, turns, Turns__due, &due));
    if (count + 1 >= due) {
        /* This transaction is to be looked at closely. */
        goto seldom;
    }
    NEED(*server, get(state, record, Server__connection));
    if (!is_a(state, *server, ServerConnection__borrower)) {
        goto seldom;
    }
    drop_last(idle);
    DO(set(state, *server, ServerConnection__borrower, client));
    DO(set(state, record, Server__state, state->linked));
    DO(add_one(state, turns, Turns__count));
    done = 1;
    goto failed;
seldom:
    done = 0;
failed:
    if (done <= 0) {
        Py_CLEAR(*server);
    }
    Py_XDECREF(pool);
    Py_XDECREF(lane);
    Py_XDECREF(idle);
    Py_XDECREF(record);
    Py_XDECREF(session);
    Py_XDECREF(turns);
    return done;
}

/* `lender.take(client, parameters, settings, home)` */
PyObject *
lend(State *state, PyObject *const *all)
{
    PyObject *server = NULL;
    int done = take(state, all, &server);
    if (done) {
        return server;
    }
    return is_a(state, all[0], ServerLender___pool)
        ? in_python(state, ServerLender__take, all, 5)
        : call_python(state, call_take, all, 5);
}

static void
forget_returned(Returned *given)
{
    Py_XDECREF(given->record);
    Py_XDECREF(given->lane);
    Py_XDECREF(given->pool);
    Py_XDECREF(given->pools);
}

/* Whether a server in which nothing is left may simply serve somebody else; `given` is to be forgotten in any case. */
static int
look_at(State *state, PyObject *lender, PyObject *server, Returned *given)
{
    PyObject *limits = NULL;
    int answer = -1;
    if (state->idle == NULL || state->linked == NULL || !is_a(state, lender, ServerLender___pool)) {
        goto seldom;
    }
    NEED(limits, get(state, lender, ServerLender___limits));
    UNLESS_SELDOM(is_true(state, limits, Limits__session_mode));
    NEED(given->record, get(state, server, ServerConnection__record));
    NEED(given->lane, get(state, given->record, Server__lane));
    NEED(given->pool, get(state, given->lane, Lane__pool));
    NEED(given->pools, get(state, given->pool, Pool__pools));
    ONLY_IF(is(state, given->record, Server__retiring, Py_None));
    ONLY_IF(is(state, given->record, Server__state, state->linked));
    UNLESS_SELDOM(is(state, server, ServerConnection__borrower, Py_None));
    answer = 1;
    goto failed;
seldom:
    answer = 0;
failed:
    Py_XDECREF(limits);
    return answer;
}

/* Let a server be idle, where nobody could want it; 0 where more is to be done. */
static int
put_back(State *state, PyObject *lender, PyObject *server, const Returned *given)
{
    PyObject *checks = NULL, *idle = NULL, *quiet = NULL;
    Py_ssize_t turns;
    int done = -1;
    NEED(checks, get(state, lender, ServerLender___checks));
    ONLY_IF(is(state, checks, Checks___patience, Py_None));
    NEED(idle, get(state, given->lane, Lane__idle));
    if (!PyList_CheckExact(idle)) {
        goto seldom;
    }
    NEED(quiet, get(state, server, ServerConnection___at_rest));
    DO(get_number(state, given->pools, Pools__turns, &turns));
    DO(set(state, server, ServerConnection__borrower, Py_None));
    DO(set(state, server, ServerConnection__receive, quiet));
    DO(set(state, given->record, Server__state, state->idle));
    DO(add_one(state, given->pools, Pools__turns));
    DO(set_number(state, given->record, Server__turn, turns + 1));
    DO(PyList_Append(idle, given->record));
    done = 1;
    goto failed;
seldom:
    done = 0;
failed:
    Py_XDECREF(checks);
    Py_XDECREF(idle);
    Py_XDECREF(quiet);
    return done;
}

/* `lender.hand_on(server)` */
int
take_back(State *state, PyObject *lender, PyObject *server)
{
    Returned given = {NULL, NULL, NULL, NULL};
    int done = look_at(state, lender, server, &given);
    if (done > 0) {
        int contested = is_true(state, given.pools, Pools__contested);
        int wanted = contested < 0 ? -1 : is_true(state, given.pool, Pool__waiting);
        done = wanted < 0 ? -1
            : wanted      ? pass_on(state, lender, server, &given, contested)
            : contested   ? 0
                          : put_back(state, lender, server, &given);
    }
    forget_returned(&given);
    if (done) {
        return done < 0 ? -1 : 0;
    }
    if (!is_a(state, lender, ServerLender___pool)) {
        return ignore(call_python_with(state, call_hand_on, lender, server));
    }
    PyObject *both[] = {lender, server};
    return ignore(in_python(state, ServerLender__hand_on, both, 2));
}

PyObject *
ServerLender_take(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    /* One of a class made from it comes here, too, and is not to be sent here again. */
    return count == 5 && is_a(state, arguments[0], ServerLender___pool)
        ? lend(state, arguments)
        : in_python(state, ServerLender__take, arguments, count);
}

PyObject *
ServerLender_hand_on(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    if (count != 2 || !is_a(state, arguments[0], ServerLender___pool)) {
        return in_python(state, ServerLender__hand_on, arguments, count);
    }
    return take_back(state, arguments[0], arguments[1]) < 0 ? NULL : Py_NewRef(Py_None);
}
