-- The tables and functions of `PostgresJournal`, version 1. {schema} stands for the quoted schema.
--
-- A batch of requests is one call of apply(): one statement, one transaction, one round trip. It
--
-- 1. makes the commit durable, whatever the session's synchronous_commit is;
-- 2. locks the row of its owner. So an earlier batch of the same owner has ended, committed or not,
--    even if its connection was lost;
-- 3. compares its number with that of the last batch that was carried out. If they are equal, it
--    only repeats the answer: a batch can be sent again until an answer comes. If its own number is
--    lower, it does nothing;
-- 4. carries the steps out in order. Each checks, under a lock on its sagas, that they belong to
--    this owner; claim() skips locked sagas. A refused request does not affect the others.
--
-- An owner with open sagas is alive as long as a session holds the advisory lock lock_key(owner),
-- or until its lease expires by the clock of the server.
--
-- The row of a saga has its owner and its epoch, which counts the changes of the owner. A write
-- names both (a fencing token). If the saga was taken over, the write is refused, however late it
-- arrives.
--
-- The cost of a claim must not depend on the number of settled sagas, which stay listed for weeks.
-- So a saga has a flag that says whether it is open (has pending or deferred actions), and claims
-- read partial indexes. Expired rows are deleted a few at a time.
--
-- The statements leave the planner no choice. Statistics of tables that are filled and emptied all
-- the time are never right, and a plan that is good for ten rows reads all of a million. So rows are
-- found by "= ANY" of an array, not by joins; and a condition that must not be searched by an index
-- is written so that it cannot be ("IS TRUE").
--
-- Lock order: the row of the own owner, then sagas. Advisory locks of other owners are only tried.

CREATE TABLE {schema}.version (number integer NOT NULL);

CREATE TABLE {schema}.owner (
    id text PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires timestamptz,
    batch bigint NOT NULL DEFAULT 0,
    answer jsonb NOT NULL DEFAULT '[]'
);
COMMENT ON TABLE {schema}.owner IS
    'Processes with open sagas. Without a time in "expires", a session holds an advisory lock.';

CREATE INDEX owner_since ON {schema}.owner (since);

CREATE TABLE {schema}.saga (
    id text PRIMARY KEY,
    name text NOT NULL,
    began timestamptz NOT NULL DEFAULT clock_timestamp(),
    number bigint NOT NULL,
    owner text NOT NULL,
    epoch bigint NOT NULL,
    is_open boolean NOT NULL DEFAULT true,
    on_failure text NOT NULL DEFAULT 'continue' CHECK (on_failure IN ('continue', 'stop'))
);
CREATE SEQUENCE {schema}.saga_number OWNED BY {schema}.saga.number;
CREATE INDEX saga_open ON {schema}.saga (number) WHERE is_open;
CREATE INDEX saga_open_of_owner ON {schema}.saga (owner) WHERE is_open;
COMMENT ON TABLE {schema}.saga IS 'Undo actions that are undone together.';

CREATE TABLE {schema}.action (
    id text PRIMARY KEY,
    saga text NOT NULL,
    position text COLLATE "C" NOT NULL,
    path text NOT NULL,
    key text NOT NULL,
    name text NOT NULL,
    version bigint NOT NULL,
    arguments text NOT NULL,
    state text NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'done', 'stuck', 'deferred')),
    attempts bigint NOT NULL DEFAULT 0,
    next_attempt double precision NOT NULL DEFAULT 0,
    error text NOT NULL DEFAULT '',
    ended timestamptz
);
CREATE INDEX action_of_saga ON {schema}.action (saga, position);
CREATE INDEX action_open ON {schema}.action (saga) WHERE state IN ('pending', 'deferred');
CREATE INDEX action_stuck ON {schema}.action (saga) WHERE state = 'stuck';
CREATE INDEX action_ended ON {schema}.action (ended) WHERE state = 'done';
COMMENT ON TABLE {schema}.action IS 'Undo actions: on record before their effects.';

CREATE FUNCTION {schema}.lock_key(owner text) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtextextended('returns_pipeline {schema} owner ' || owner, 0)
$$;

CREATE VIEW {schema}.locks AS
    SELECT pid, (classid::bigint << 32) | objid::bigint AS key FROM pg_catalog.pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND mode = 'ExclusiveLock'
        AND database = (
            SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()
        );

-- Return whether an owner is dead. If it is, it stays dead until the end of the transaction.
CREATE FUNCTION {schema}.is_gone(other text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF other = '' THEN
        RETURN true;
    END IF;
    IF EXISTS (SELECT FROM {schema}.owner WHERE id = other AND expires IS NOT NULL) THEN
        -- If its row is locked, the owner is at work, or another process is claiming its sagas.
        PERFORM FROM {schema}.owner WHERE id = other AND expires <= clock_timestamp()
            FOR SHARE SKIP LOCKED;
        RETURN FOUND;
    END IF;
    -- Shared, so that processes that check do not take one another for the owner.
    RETURN pg_try_advisory_xact_lock_shared({schema}.lock_key(other));
END
$$;

-- Take the lock of an owner for the calling session, and return the process of that session. If
-- another session has the lock, it is an earlier one of the same owner, whose connection was lost
-- without the server noticing yet: it is ended. By the setting, apply() recognises batches that a
-- pooler sends through another session.
CREATE FUNCTION {schema}.take(me text, wait text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('returns_pipeline.owner', me, false);
    PERFORM set_config('lock_timeout', wait, true);
    IF NOT pg_try_advisory_lock({schema}.lock_key(me)) THEN
        PERFORM pg_terminate_backend(pid) FROM {schema}.locks
            WHERE key = {schema}.lock_key(me) AND pid <> pg_backend_pid();
        PERFORM pg_advisory_lock({schema}.lock_key(me));
    END IF;
    RETURN pg_backend_pid();
END
$$;

-- The owners that are alive, for lists. Unlike is_gone() it takes no lock, so it may be outdated.
CREATE VIEW {schema}.living AS
    WITH held AS MATERIALIZED (SELECT key FROM {schema}.locks)
    SELECT id FROM {schema}.owner WHERE CASE WHEN expires IS NULL
        THEN EXISTS (SELECT FROM held WHERE key = {schema}.lock_key(owner.id))
        ELSE expires > clock_timestamp() END;

-- Lock the sagas of some rows; return those that belong to an owner, each as "id epoch".
CREATE FUNCTION {schema}.held(me text, requests jsonb) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    wanted text[] := ARRAY(SELECT DISTINCT x ->> 'saga' FROM jsonb_array_elements(requests) AS x);
BEGIN
    RETURN ARRAY(
        SELECT id || ' ' || epoch FROM {schema}.saga
        WHERE id = ANY(wanted) AND owner = me FOR NO KEY UPDATE
    );
END
$$;

CREATE FUNCTION {schema}.record(me text, rows jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    mine text[];
BEGIN
    -- "known": the owner relies on other actions of the saga. If such a saga is missing, another
    -- process took it over and settled it, so it must not be created again.
    INSERT INTO {schema}.saga (id, name, number, owner, epoch, on_failure)
        SELECT id, name, nextval('{schema}.saga_number'), me, 1, on_failure FROM (
            SELECT DISTINCT ON (x.saga) x.saga AS id, x.saga_name AS name, x.on_failure, x.n
            FROM jsonb_to_recordset(rows) AS x(
                n int, saga text, saga_name text, on_failure text, known boolean
            ) WHERE NOT x.known ORDER BY x.saga, x.n
        ) AS made ORDER BY n
        ON CONFLICT (id) DO NOTHING;
    mine := {schema}.held(me, rows);
    -- A saga that was rolled back, and gets new actions.
    UPDATE {schema}.saga SET is_open = true WHERE NOT is_open AND id = ANY(ARRAY(
        SELECT x.saga FROM jsonb_to_recordset(rows) AS x(saga text)
        WHERE x.saga || ' 1' = ANY(mine)
    ));
    INSERT INTO {schema}.action (id, saga, position, path, key, name, version, arguments)
        SELECT x.id, x.saga, x.position, x.path, x.key, x.name, x.version, x.arguments
        FROM jsonb_to_recordset(rows) AS x(
            id text, saga text, position text, path text, key text, name text, version bigint,
            arguments text
        ) WHERE x.saga || ' 1' = ANY(mine);
    RETURN (
        SELECT coalesce(jsonb_agg(x.n), '[]')
        FROM jsonb_to_recordset(rows) AS x(n int, saga text) WHERE x.saga || ' 1' <> ALL(mine)
    );
END
$$;

CREATE FUNCTION {schema}.forget(me text, rows jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    mine text[] := {schema}.held(me, rows);
    ids text[] := ARRAY(SELECT x ->> 'id' FROM jsonb_array_elements(rows) AS x);
    saga_of jsonb := (SELECT jsonb_object_agg(id, saga) FROM {schema}.action WHERE id = ANY(ids));
    refused jsonb;
BEGIN
    refused := (
        SELECT coalesce(jsonb_agg(DISTINCT x.n), '[]')
        FROM jsonb_to_recordset(rows) AS x(n int, id text, saga text, epoch bigint)
        WHERE x.saga || ' ' || x.epoch <> ALL(mine) OR saga_of ->> x.id IS DISTINCT FROM x.saga
    );
    DELETE FROM {schema}.action WHERE id = ANY(ARRAY(
        SELECT x.id FROM jsonb_to_recordset(rows) AS x(n int, id text)
        WHERE NOT refused @> to_jsonb(x.n)
    ));
    PERFORM {schema}.settle(ARRAY(
        SELECT DISTINCT x.saga FROM jsonb_to_recordset(rows) AS x(n int, saga text)
        WHERE NOT refused @> to_jsonb(x.n)
    ));
    RETURN refused;
END
$$;

-- Of some sagas, delete those without any actions and return their ids; mark those without open
-- actions as closed. The caller has locked them.
CREATE FUNCTION {schema}.settle(sagas text[]) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    one text;
    dropped text[] := '{}';
BEGIN
    FOREACH one IN ARRAY sagas LOOP
        IF EXISTS (
            SELECT FROM {schema}.action WHERE saga = one AND state IN ('pending', 'deferred')
        ) THEN
            CONTINUE;
        END IF;
        IF EXISTS (SELECT FROM {schema}.action WHERE saga = one) THEN
            UPDATE {schema}.saga SET is_open = false WHERE id = one AND is_open IS TRUE;
        ELSE
            DELETE FROM {schema}.saga WHERE id = one;
            dropped := dropped || one;
        END IF;
    END LOOP;
    RETURN dropped;
END
$$;

CREATE FUNCTION {schema}.change(me text, rows jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    mine text[] := {schema}.held(me, rows);
    ids text[] := ARRAY(SELECT x ->> 'id' FROM jsonb_array_elements(rows) AS x);
    changed jsonb;
BEGIN
    WITH found AS (
        UPDATE {schema}.action AS a SET
            state = coalesce(x.state, a.state),
            attempts = a.attempts + CASE WHEN x.begins THEN 1 ELSE 0 END,
            next_attempt = coalesce(x.next_attempt, a.next_attempt),
            error = coalesce(x.error, a.error),
            ended = CASE WHEN x.state = 'done' THEN clock_timestamp() ELSE a.ended END
        FROM jsonb_to_recordset(rows) AS x(
            n int, id text, saga text, epoch bigint, state text, begins boolean,
            next_attempt double precision, error text
        ) WHERE a.id = ANY(ids) AND a.id = x.id AND a.saga IS NOT DISTINCT FROM x.saga
            AND x.saga || ' ' || x.epoch = ANY(mine)
        RETURNING x.n
    ) SELECT coalesce(jsonb_agg(n), '[]') FROM found INTO changed;
    PERFORM {schema}.settle(ARRAY(
        SELECT DISTINCT x.saga
        FROM jsonb_to_recordset(rows) AS x(n int, saga text, state text)
        WHERE x.state IN ('done', 'stuck') AND changed @> to_jsonb(x.n)
    ));
    RETURN (
        SELECT coalesce(jsonb_agg(x.n), '[]') FROM jsonb_to_recordset(rows) AS x(n int)
        WHERE NOT changed @> to_jsonb(x.n)
    );
END
$$;

-- Move actions into another saga. Positions are absolute, so a repetition changes nothing.
CREATE FUNCTION {schema}.move(me text, request jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    moving text[] := ARRAY(SELECT x ->> 'id' FROM jsonb_array_elements(request -> 'rows') AS x);
    target text := request ->> 'to';
    sources text[];
BEGIN
    sources := ARRAY(
        SELECT id FROM {schema}.saga WHERE id = ANY(ARRAY(
            SELECT DISTINCT saga FROM {schema}.action WHERE id = ANY(moving)
        )) AND owner = me AND epoch = 1 FOR NO KEY UPDATE
    );
    INSERT INTO {schema}.saga (id, name, began, number, owner, epoch, on_failure)
        SELECT target, request ->> 'name', began, number, me, 1, on_failure FROM {schema}.saga
        WHERE id = ANY(sources) ORDER BY number LIMIT 1
        ON CONFLICT (id) DO NOTHING;
    PERFORM FROM {schema}.saga WHERE id = target AND owner = me AND epoch = 1 FOR NO KEY UPDATE;
    IF FOUND THEN
        UPDATE {schema}.saga SET is_open = true WHERE id = target;
        UPDATE {schema}.action AS a SET saga = target, position = x.position
            FROM jsonb_to_recordset(request -> 'rows') AS x(id text, position text)
            WHERE a.id = ANY(moving) AND a.id = x.id AND (a.saga = ANY(sources)) IS TRUE;
        PERFORM {schema}.settle(sources);
    END IF;
END
$$;

-- Move open actions of a saga into a saga of their own, without an owner: the next recovery takes
-- it, even while the former owner is alive. A repetition finds them moved, and changes nothing.
CREATE FUNCTION {schema}.abandon(me text, request jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ids text[] := ARRAY(SELECT jsonb_array_elements_text(request -> 'ids'));
    source text := request ->> 'saga';
    target text := request ->> 'to';
BEGIN
    PERFORM FROM {schema}.saga WHERE id = source
        AND (owner = me AND epoch = (request ->> 'epoch')::bigint) IS TRUE FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE {schema}.action SET saga = target WHERE id = ANY(ids)
        AND (saga = source AND state IN ('pending', 'deferred')) IS TRUE;
    IF FOUND THEN
        INSERT INTO {schema}.saga (id, name, began, number, owner, epoch, on_failure)
            SELECT target, name, began, nextval('{schema}.saga_number'), '', 1, on_failure
            FROM {schema}.saga WHERE id = source;
        PERFORM {schema}.settle(ARRAY[source]);
    END IF;
END
$$;

-- Sagas as a claim and a list return them, with their actions, the last registered first.
CREATE VIEW {schema}.stored AS
    SELECT s.id, s.number, s.owner, jsonb_build_object(
        'id', s.id, 'name', s.name, 'began', extract(epoch FROM s.began)::float8,
        'owner', s.owner, 'epoch', s.epoch, 'on_failure', s.on_failure, 'actions', (
            SELECT coalesce(jsonb_agg(jsonb_build_array(
                a.id, a.position, a.path, a.key, a.name, a.version, a.arguments, a.state,
                a.attempts, a.next_attempt, a.error
            ) ORDER BY a.position DESC), '[]') FROM {schema}.action AS a WHERE a.saga = s.id
        )
    ) AS saga FROM {schema}.saga AS s;

-- Delete a few actions that were undone long ago, with the sagas that become empty, and a few dead
-- owners that have nothing open. Return the sagas that were deleted.
CREATE FUNCTION {schema}.expire(me text, retention double precision) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    -- Variables, because an index can be searched only for a value that is known beforehand.
    old timestamptz := clock_timestamp() - make_interval(secs => retention);
    yesterday timestamptz := clock_timestamp() - interval '1 day';
    touched text[];
    other text;
BEGIN
    WITH expired AS (
        DELETE FROM {schema}.action WHERE id IN (
            SELECT id FROM {schema}.action WHERE state = 'done' AND ended < old
            ORDER BY ended LIMIT 200 FOR UPDATE SKIP LOCKED
        ) RETURNING saga
    ) SELECT array_agg(DISTINCT saga) FROM expired INTO touched;
    -- A saga that is locked by another transaction is skipped: that transaction writes to it, or
    -- deletes it.
    touched := {schema}.settle(ARRAY(
        SELECT id FROM {schema}.saga WHERE id = ANY(touched) FOR UPDATE SKIP LOCKED
    ));
    FOR other IN
        SELECT id FROM {schema}.owner AS o WHERE id <> me AND seen < yesterday
            AND (SELECT true FROM {schema}.saga WHERE owner = o.id AND is_open LIMIT 1) IS NULL
        ORDER BY since LIMIT 50 FOR UPDATE SKIP LOCKED
    LOOP
        -- A lock is held until the commit for each dead owner: that is why they are so few.
        IF {schema}.is_gone(other) THEN
            DELETE FROM {schema}.owner WHERE id = other;
        ELSE
            UPDATE {schema}.owner SET seen = clock_timestamp() WHERE id = other;
        END IF;
    END LOOP;
    RETURN to_jsonb(touched);
END
$$;

-- Take over the newest open sagas of dead owners, as many as requested.
CREATE FUNCTION {schema}.claim(me text, request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    besides jsonb := request -> 'besides';  -- as keys, which are found fast
    most int := (request ->> 'limit')::int;
    living text[] := ARRAY[me];
    candidate record;
    now_there record;
    claimed text[] := '{}';
    dropped jsonb := {schema}.expire(me, (request ->> 'retention')::float);
BEGIN
    FOR candidate IN
        SELECT id, owner FROM {schema}.saga
        WHERE is_open AND owner <> me ORDER BY number DESC
    LOOP
        CONTINUE WHEN candidate.owner = ANY(living) OR besides ? candidate.id;
        -- A lock is held until the commit for each dead owner: no more than one for each saga.
        IF NOT {schema}.is_gone(candidate.owner) THEN
            living := living || candidate.owner;
            CONTINUE;
        END IF;
        SELECT owner, is_open INTO now_there FROM {schema}.saga
            WHERE id = candidate.id FOR UPDATE SKIP LOCKED;
        IF FOUND AND now_there.owner = candidate.owner AND now_there.is_open THEN
            UPDATE {schema}.saga SET owner = me, epoch = epoch + 1 WHERE id = candidate.id;
            claimed := claimed || candidate.id;
            EXIT WHEN cardinality(claimed) >= most;
        END IF;
    END LOOP;
    RETURN jsonb_build_object('dropped', dropped, 'found', (
        SELECT coalesce(jsonb_agg(saga ORDER BY number DESC), '[]')
        FROM {schema}.stored WHERE id = ANY(claimed)
    ));
END
$$;

CREATE FUNCTION {schema}.leave(me text) RETURNS void LANGUAGE sql AS $$
    UPDATE {schema}.saga SET owner = '', epoch = epoch + 1 WHERE owner = me AND is_open;
    DELETE FROM {schema}.owner WHERE id = me;
$$;

-- Retry or discard the actions that were given up. If their owner is alive, only stuck actions are
-- taken, which the owner does not touch again. If they are retried, they become a saga of their own,
-- and the next recovery takes it.
CREATE FUNCTION {schema}.resume(me text, kind text, request jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    holder text;
    given_up text[] := '{stuck,deferred}';
    target text := request ->> 'saga';
    changed bigint;
BEGIN
    SELECT owner INTO holder FROM {schema}.saga WHERE id = target FOR NO KEY UPDATE;
    IF holder = me OR NOT {schema}.is_gone(holder) THEN
        given_up := '{stuck}';
        IF kind = 'retry' THEN
            target := md5(random()::text || clock_timestamp() || target);
        END IF;
    END IF;
    IF kind = 'retry' THEN
        UPDATE {schema}.action
            SET state = 'pending', attempts = 0, next_attempt = 0, saga = target
            WHERE saga = request ->> 'saga' AND state = ANY(given_up);
        GET DIAGNOSTICS changed = ROW_COUNT;
        -- The owner, should it come back, would not try it again: free it for the next recovery.
        UPDATE {schema}.saga SET owner = '', epoch = epoch + 1, is_open = true
            WHERE changed > 0 AND id = target;
    ELSE
        UPDATE {schema}.action SET state = 'done', error = request ->> 'error',
                ended = clock_timestamp()
            WHERE saga = target AND state = ANY(given_up);
        GET DIAGNOSTICS changed = ROW_COUNT;
    END IF;
    IF changed > 0 AND target <> request ->> 'saga' THEN
        INSERT INTO {schema}.saga (id, name, began, number, owner, epoch, on_failure)
            SELECT target, name, began, nextval('{schema}.saga_number'), '', 1, on_failure
            FROM {schema}.saga WHERE id = request ->> 'saga';
    END IF;
    PERFORM {schema}.settle(ARRAY[request ->> 'saga']);
    RETURN changed;
END
$$;

CREATE FUNCTION {schema}.carry_out(me text, kind text, request jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    ids text[];
    mine text[];
BEGIN
    CASE kind
    WHEN 'record' THEN
        RETURN {schema}.record(me, request -> 'rows');
    WHEN 'forget' THEN
        RETURN {schema}.forget(me, request -> 'rows');
    WHEN 'change' THEN
        RETURN {schema}.change(me, request -> 'rows');
    WHEN 'move' THEN
        PERFORM {schema}.move(me, request);
    WHEN 'abandon' THEN
        PERFORM {schema}.abandon(me, request);
    WHEN 'claim' THEN
        RETURN {schema}.claim(me, request);
    WHEN 'release' THEN
        UPDATE {schema}.saga SET owner = '', epoch = epoch + 1 WHERE id = request ->> 'saga'
            AND (owner = me AND epoch = (request ->> 'epoch')::bigint) IS TRUE;
        RETURN to_jsonb(FOUND);
    WHEN 'retry', 'discard' THEN
        RETURN to_jsonb({schema}.resume(me, kind, request));
    WHEN 'drop' THEN  -- actions in doubt, on record or not: their effects did not begin
        ids := ARRAY(SELECT jsonb_array_elements_text(request -> 'ids'));
        mine := ARRAY(
            SELECT id FROM {schema}.saga WHERE id = ANY(ARRAY(
                SELECT DISTINCT saga FROM {schema}.action WHERE id = ANY(ids)
            )) AND owner = me AND epoch = 1 FOR UPDATE
        );
        DELETE FROM {schema}.action WHERE id = ANY(ids) AND (saga = ANY(mine)) IS TRUE;
        PERFORM {schema}.settle(mine);
    WHEN 'disown' THEN  -- orphaned sagas: they were claimed, and their caller is gone
        UPDATE {schema}.saga SET owner = '', epoch = epoch + 1
            WHERE owner = me AND is_open AND epoch > 1
                AND id NOT IN (SELECT jsonb_array_elements_text(request -> 'held'));
    WHEN 'expire' THEN
        PERFORM {schema}.expire(me, (request ->> 'retention')::float);
    WHEN 'leave' THEN
        PERFORM {schema}.leave(me);
    END CASE;
    RETURN 'null';
END
$$;

CREATE FUNCTION {schema}.apply(
    me text, this bigint, lease double precision, wait text, requests jsonb
) RETURNS jsonb LANGUAGE plpgsql
-- Planned once, and with indexes: see above.
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off
SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off
AS $$
DECLARE
    last bigint;
    answers jsonb;
    kept jsonb;
    request jsonb;
    result jsonb;
    until timestamptz;
BEGIN
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    PERFORM set_config('lock_timeout', wait, true);
    SELECT batch, answer INTO last, kept FROM {schema}.owner WHERE id = me FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        INSERT INTO {schema}.owner (id) VALUES (me)
            ON CONFLICT (id) DO UPDATE SET seen = clock_timestamp()
            RETURNING batch, answer INTO last, kept;
    END IF;
    IF this < last THEN
        RAISE EXCEPTION 'batch % comes after batch %', this, last;
    END IF;
    answers := kept;
    IF this > last THEN
        IF lease = 0 AND current_setting('returns_pipeline.owner', true) IS DISTINCT FROM me THEN
            RAISE EXCEPTION 'this is not the session that holds the lock of its owner'
                USING ERRCODE = 'RP001';
        END IF;
        answers := '[]';
        kept := '[]';
        FOR request IN SELECT jsonb_array_elements(requests) LOOP
            result := {schema}.carry_out(me, request ->> 'do', request);
            answers := answers || jsonb_build_array(result);
            -- Claims are not repeated: another owner may have the sagas by then.
            kept := kept || CASE request ->> 'do'
                WHEN 'claim' THEN '[null]' ELSE jsonb_build_array(result) END;
        END LOOP;
    END IF;
    until := CASE WHEN lease > 0 THEN clock_timestamp() + make_interval(secs => lease) END;
    UPDATE {schema}.owner SET batch = this, answer = kept, seen = clock_timestamp(),
        expires = until WHERE id = me;
    RETURN answers;
END
$$;
