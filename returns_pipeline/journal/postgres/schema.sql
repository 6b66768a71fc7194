-- The tables and functions of `PostgresJournal`, version 1. {schema} stands for the quoted schema.
--
-- A batch of requests is one call of apply(): one statement, one transaction, one round trip. It
--
-- 1. makes the commit durable, whatever the session's synchronous_commit is;
-- 2. locks the row of its owner. So a batch of the same owner whose connection was lost has ended
--    before, whichever way;
-- 3. knows by its number whether it has been carried out already, and then only repeats the answer:
--    it can be sent again until an answer comes. One that arrives after a later one does nothing;
-- 4. carries the steps out in order. Each checks that its sagas are this owner's, under a lock on
--    the sagas; claim() skips what is locked. A request that is refused does not harm the others.
--
-- An owner with open sagas is alive as long as a session holds the advisory lock lock_key(owner),
-- or until its lease ends by the clock of the server.
--
-- The row of a saga carries its owner and its epoch, which counts the changes of the owner. A write
-- names both; a process whose saga was taken over is refused, however late its write arrives.
--
-- What a claim costs must not depend on what was done before: rolled back sagas stay listed for
-- weeks. So a saga knows whether it is open (has actions that are pending or deferred), and what
-- claims read is in partial indexes. Rows that nobody needs any more are deleted a few at a time.
--
-- The statements leave the planner no choice. Statistics of tables that are filled and emptied all
-- the time are never right, and a plan that is good for ten rows reads all of a million. So rows are
-- found by "= ANY" of an array and not by joins; and a condition that is not meant to be searched by
-- its index is written so that it cannot be.

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

-- Whether an owner is dead. It cannot come back before the end of the transaction.
CREATE FUNCTION {schema}.is_gone(other text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF other = '' THEN
        RETURN true;
    END IF;
    IF EXISTS (SELECT FROM {schema}.owner WHERE id = other AND expires IS NOT NULL) THEN
        -- An owner whose row is locked is at work, or another process has just found it dead.
        PERFORM FROM {schema}.owner WHERE id = other AND expires <= clock_timestamp()
            FOR SHARE SKIP LOCKED;
        RETURN FOUND;
    END IF;
    -- Shared, so that processes that check do not take one another for the owner.
    RETURN pg_try_advisory_xact_lock_shared({schema}.lock_key(other));
END
$$;

-- Have the session that calls this hold the lock of an owner, and return its process. If another
-- session holds it, that is one of the same owner whose connection was lost, which the server may not
-- have noticed yet. The setting tells batches of this session from those that a pooler sends through
-- another one: see apply().
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

-- The same as is_gone() for a list: it takes no lock, and may be wrong a moment later.
CREATE VIEW {schema}.living AS
    WITH held AS MATERIALIZED (SELECT key FROM {schema}.locks)
    SELECT id FROM {schema}.owner WHERE CASE WHEN expires IS NULL
        THEN EXISTS (SELECT FROM held WHERE key = {schema}.lock_key(owner.id))
        ELSE expires > clock_timestamp() END;

-- Lock the sagas of some rows; return those that are an owner's, each as "id epoch".
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
    -- If the owner counts on other actions of a saga that is not there, it was taken over and
    -- settled: it is not made anew.
    INSERT INTO {schema}.saga (id, name, number, owner, epoch, on_failure)
        SELECT id, name, nextval('{schema}.saga_number'), me, 1, on_failure FROM (
            SELECT DISTINCT ON (x.saga) x.saga AS id, x.saga_name AS name, x.on_failure, x.n
            FROM jsonb_to_recordset(rows) AS x(
                n int, saga text, saga_name text, on_failure text, known boolean
            ) WHERE NOT x.known ORDER BY x.saga, x.n
        ) AS made ORDER BY n
        ON CONFLICT (id) DO NOTHING;
    mine := {schema}.held(me, rows);
    -- One that was rolled back, and is registered in again.
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

-- Delete those of some sagas that have no actions any more, and return their ids; close those that
-- have no open ones. The caller has locked them.
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

-- Put actions into another saga. Positions are absolute: doing it again changes nothing.
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

-- Put open actions of a saga into one of their own that nobody owns: the next recovery takes it, also
-- while their former owner lives. Doing it again finds them moved, and changes nothing.
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

-- Delete a few actions that were undone long ago, with the sagas that are empty then, and a few
-- owners that are dead and have nothing open. Return the sagas that were deleted.
CREATE FUNCTION {schema}.expire(me text, retention double precision) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    -- In variables: an index is searched for what is known before the search.
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
    -- A saga that is locked by another is being written to: it is not empty, or deleted there.
    touched := {schema}.settle(ARRAY(
        SELECT id FROM {schema}.saga WHERE id = ANY(touched) FOR UPDATE SKIP LOCKED
    ));
    FOR other IN
        SELECT id FROM {schema}.owner AS o WHERE id <> me AND seen < yesterday
            AND (SELECT true FROM {schema}.saga WHERE owner = o.id AND is_open LIMIT 1) IS NULL
        ORDER BY since LIMIT 50 FOR UPDATE SKIP LOCKED
    LOOP
        -- For each that is dead a lock is held until the commit: that is why they are so few.
        IF {schema}.is_gone(other) THEN
            DELETE FROM {schema}.owner WHERE id = other;
        ELSE
            UPDATE {schema}.owner SET seen = clock_timestamp() WHERE id = other;
        END IF;
    END LOOP;
    RETURN to_jsonb(touched);
END
$$;

-- Take over the newest open sagas of dead owners, as many as are asked for.
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
        -- A lock for each dead owner is held until the commit. They are no more than sagas.
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

-- Have what was given up tried again, or never again. If its owner lives, that is only what is
-- stuck, which the owner does not touch again: what is retried becomes a saga of its own then, and
-- the next recovery takes it.
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
        -- Its owner, should it come back, would not try it again: let the next recovery have it.
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
    WHEN 'drop' THEN  -- actions in doubt: on record or not, their effects did not begin
        ids := ARRAY(SELECT jsonb_array_elements_text(request -> 'ids'));
        mine := ARRAY(
            SELECT id FROM {schema}.saga WHERE id = ANY(ARRAY(
                SELECT DISTINCT saga FROM {schema}.action WHERE id = ANY(ids)
            )) AND owner = me AND epoch = 1 FOR UPDATE
        );
        DELETE FROM {schema}.action WHERE id = ANY(ids) AND (saga = ANY(mine)) IS TRUE;
        PERFORM {schema}.settle(mine);
    WHEN 'disown' THEN  -- orphaned sagas: claimed, but the caller never learned of it
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
-- Planned once, and by index: see above.
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
            -- What was claimed is not kept: another owner may have it when it is asked for again.
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
