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

CREATE TABLE {schema}.taken_partition (
    source text NOT NULL,
    partition text NOT NULL,
    epoch bigint NOT NULL,
    PRIMARY KEY (source, partition)
);
COMMENT ON TABLE {schema}.taken_partition IS
    'Partitions of sources, and how often each was taken: what an earlier taker commits is refused.';

-- Positions as arrays: they compare as they do in Python, and an empty one is before all others.
CREATE TABLE {schema}.span (
    source text NOT NULL,
    partition text NOT NULL,
    after bigint[] NOT NULL,
    last bigint[] NOT NULL,
    stamp double precision,
    PRIMARY KEY (source, partition, after)
);
COMMENT ON TABLE {schema}.span IS
    'Positions of messages whose effects are committed: those after one, up to another.';

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

-- Take partitions. Return the epoch of each, and its spans as the text of JSON.
CREATE FUNCTION {schema}.take_partitions(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    one text;
    taken bigint;
    answer jsonb := '{}';
BEGIN
    FOR one IN SELECT jsonb_array_elements_text(request -> 'partitions') LOOP
        INSERT INTO {schema}.taken_partition AS t VALUES (request ->> 'source', one, 1)
            ON CONFLICT (source, partition) DO UPDATE SET epoch = t.epoch + 1
            RETURNING epoch INTO taken;
        answer := answer || jsonb_build_object(one, jsonb_build_array(taken, (
            SELECT coalesce(jsonb_agg(jsonb_build_array(after, last, stamp) ORDER BY after), '[]')
            FROM {schema}.span WHERE source = request ->> 'source' AND partition = one
        )::text));
    END LOOP;
    RETURN answer;
END
$$;

-- Forget what is stored of partitions, or of all of a source. A process that has taken them is
-- refused when it commits.
CREATE FUNCTION {schema}.forget_positions(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    forgotten text[];
BEGIN
    WITH taken AS (
        UPDATE {schema}.taken_partition SET epoch = epoch + 1
        WHERE source = request ->> 'source' AND (
            request -> 'partitions' = 'null' OR request -> 'partitions' ? partition
        )
        RETURNING partition
    ) SELECT array_agg(partition) FROM taken INTO forgotten;
    DELETE FROM {schema}.span
        WHERE source = request ->> 'source' AND partition = ANY(forgotten);
    RETURN to_jsonb(coalesce(forgotten, '{}'));
END
$$;

CREATE FUNCTION {schema}.place(numbers jsonb) RETURNS bigint[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY(SELECT number::bigint FROM jsonb_array_elements_text(numbers) AS number)
$$;

-- Add a stretch to the spans of a partition, which are disjoint and do not touch: those that it
-- touches become one with it.
CREATE FUNCTION {schema}.cover(s text, p text, stretch jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    low bigint[] := {schema}.place(stretch -> 0);
    high bigint[] := {schema}.place(stretch -> 1);
    time_there double precision := (stretch ->> 2)::float8;
    other record;
BEGIN
    FOR other IN
        DELETE FROM {schema}.span AS x WHERE source = s AND partition = p
            AND (x.after <= high AND x.last >= low) IS TRUE
        RETURNING x.after, x.last, x.stamp
    LOOP
        low := least(low, other.after);
        IF other.last > high THEN
            high := other.last;
            time_there := other.stamp;
        END IF;
    END LOOP;
    INSERT INTO {schema}.span VALUES (s, p, low, high, time_there);
END
$$;

-- A row with an action removes it; one with a source stores positions. All rows of a request are
-- carried out, or none.
CREATE FUNCTION {schema}.forget(me text, rows jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    covered record;
    now_taken bigint;
    mine text[] := {schema}.held(me, rows);
    ids text[] := ARRAY(SELECT x ->> 'id' FROM jsonb_array_elements(rows) AS x);
    saga_of jsonb := (SELECT jsonb_object_agg(id, saga) FROM {schema}.action WHERE id = ANY(ids));
    refused jsonb;
BEGIN
    refused := (
        SELECT coalesce(jsonb_agg(DISTINCT x.n), '[]')
        FROM jsonb_to_recordset(rows) AS x(
            n int, id text, saga text, epoch bigint
        ) WHERE x.id IS NOT NULL AND (
            x.saga || ' ' || x.epoch <> ALL(mine) OR saga_of ->> x.id IS DISTINCT FROM x.saga
        )
    );
    FOR covered IN
        SELECT * FROM jsonb_to_recordset(rows) AS x(n int, source text, partition text, taken bigint)
        WHERE x.source IS NOT NULL ORDER BY x.source, x.partition
    LOOP
        SELECT epoch INTO now_taken FROM {schema}.taken_partition
            WHERE source = covered.source AND partition = covered.partition FOR NO KEY UPDATE;
        IF now_taken IS DISTINCT FROM covered.taken AND NOT refused @> to_jsonb(covered.n) THEN
            refused := refused || to_jsonb(covered.n);
        END IF;
    END LOOP;
    PERFORM {schema}.cover(x.source, x.partition, stretch)
        FROM jsonb_to_recordset(rows) AS x(n int, source text, partition text, stretches jsonb),
            jsonb_array_elements(x.stretches) AS stretch
        WHERE x.source IS NOT NULL AND NOT refused @> to_jsonb(x.n);
    DELETE FROM {schema}.action WHERE id = ANY(ARRAY(
        SELECT x.id FROM jsonb_to_recordset(rows) AS x(n int, id text)
        WHERE NOT refused @> to_jsonb(x.n)
    ));
    PERFORM {schema}.settle(ARRAY(
        SELECT DISTINCT x.saga FROM jsonb_to_recordset(rows) AS x(n int, saga text, epoch bigint)
        WHERE x.saga || ' ' || x.epoch = ANY(mine) AND NOT refused @> to_jsonb(x.n)
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
    known jsonb := nullif(request -> 'known', 'null');  -- names, each with its newest version
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
        -- Its newest open action was deferred, and the claimer does not know it either.
        CONTINUE WHEN known IS NOT NULL AND (
            SELECT state = 'deferred' AND (version <= (known ->> name)::bigint) IS NOT TRUE
            FROM {schema}.action WHERE saga = candidate.id AND state IN ('pending', 'deferred')
            ORDER BY position DESC LIMIT 1
        );
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
    gone text[];
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
    WHEN 'take' THEN
        RETURN {schema}.take_partitions(request);
    WHEN 'forget positions' THEN
        RETURN {schema}.forget_positions(request);
    WHEN 'claim' THEN
        RETURN {schema}.claim(me, request);
    WHEN 'release' THEN
        UPDATE {schema}.saga SET owner = '', epoch = epoch + 1 WHERE id = request ->> 'saga'
            AND (owner = me AND epoch = (request ->> 'epoch')::bigint) IS TRUE;
        RETURN to_jsonb(FOUND);
    WHEN 'retry', 'discard' THEN
        RETURN to_jsonb({schema}.resume(me, kind, request));
    WHEN 'drop' THEN
        -- Actions in doubt, on record or not, whose effects did not begin; and late commits. Return
        -- those that another owner has, because they stay on record in its saga; or has had,
        -- because they are gone although they are "expected": no batch has removed them.
        ids := ARRAY(SELECT jsonb_array_elements_text(request -> 'ids'));
        mine := ARRAY(
            SELECT id FROM {schema}.saga WHERE id = ANY(ARRAY(
                SELECT DISTINCT saga FROM {schema}.action WHERE id = ANY(ids)
            )) AND owner = me AND epoch = 1 FOR UPDATE
        );
        gone := ARRAY(
            SELECT expected FROM jsonb_array_elements_text(request -> 'expected') AS expected
            WHERE NOT EXISTS (SELECT FROM {schema}.action WHERE id = expected)
        );
        DELETE FROM {schema}.action
            WHERE id = ANY(ids) AND state IN ('pending', 'deferred') AND (saga = ANY(mine)) IS TRUE;
        PERFORM {schema}.settle(mine);
        RETURN (
            SELECT coalesce(jsonb_agg(id), '[]') || to_jsonb(gone) FROM {schema}.action
            WHERE id = ANY(ids) AND (saga = ANY(mine)) IS NOT TRUE
        );
    WHEN 'last' THEN
        -- The batch that was carried out before this one, and its answers; if that one asked only
        -- for this, the one before.
        RETURN (
            SELECT CASE WHEN answer -> 0 ->> 'do' = 'last' THEN answer -> 0
                ELSE jsonb_build_object('do', 'last', 'batch', batch, 'answers', answer) END
            FROM {schema}.owner WHERE id = me
        );
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
