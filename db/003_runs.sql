-- Schema 3: training runs with their curves, and evaluations with their classes and images.
--
-- A run is the one kind of row that changes: its state moves on while it trains. `revision` counts the changes, and of
-- two files that hold the same run the one that is further, (revision, updated_unix_seconds, hash), says how it stands.
-- Evaluations never change.

CREATE TABLE run (
    run_key INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    hash TEXT NOT NULL CHECK (length(hash) = 64),
    environment_id INTEGER NOT NULL REFERENCES environment (environment_id),
    provenance_id INTEGER NOT NULL REFERENCES provenance (provenance_id),
    revision INTEGER NOT NULL CHECK (revision > 0),
    updated_unix_seconds REAL NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('running', 'finished', 'stopped', 'diverged', 'failed')),
    reason TEXT NOT NULL,
    backbone TEXT NOT NULL,
    timm_name TEXT NOT NULL,
    pretraining TEXT NOT NULL,
    weights TEXT NOT NULL,
    resolution INTEGER NOT NULL,
    head TEXT NOT NULL,
    dataset TEXT NOT NULL,
    recipe TEXT NOT NULL,
    seed INTEGER NOT NULL,
    num_steps INTEGER NOT NULL,
    batch INTEGER NOT NULL,              -- images per step, over all processes
    num_processes INTEGER NOT NULL,
    step INTEGER NOT NULL,               -- steps done
    seconds REAL NOT NULL,               -- spent training, all resumptions together
    started_unix_seconds REAL NOT NULL,  -- started_at as a number, or the time of saving where that is empty
    started_at TEXT NOT NULL,            -- ISO 8601
    folder TEXT NOT NULL,
    config TEXT NOT NULL CHECK (json_valid(config)),
    facts TEXT NOT NULL CHECK (json_valid(facts))
) STRICT;

CREATE INDEX run_by_timm_name ON run (timm_name, resolution);
CREATE INDEX run_by_environment ON run (environment_id);
CREATE INDEX run_by_provenance ON run (provenance_id);

-- One number of a run at a step, e.g. train/loss. What is no number is said in words, never by NULL alone.
CREATE TABLE run_metric (
    run_key INTEGER NOT NULL REFERENCES run (run_key) ON DELETE CASCADE,
    name TEXT NOT NULL,
    step INTEGER NOT NULL,
    value REAL CHECK (value BETWEEN -1.7976931348623157e308 AND 1.7976931348623157e308),
    not_finite TEXT CHECK (not_finite IN ('nan', 'inf', '-inf')),
    PRIMARY KEY (run_key, name, step),
    CHECK ((value IS NULL) = (not_finite IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- What a checkpoint scored on a split. run_id names no row of run where the checkpoint came from elsewhere.
CREATE TABLE evaluation (
    evaluation_id INTEGER PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE CHECK (length(hash) = 64),
    run_id TEXT NOT NULL,
    checkpoint_sha256 TEXT NOT NULL,
    step INTEGER NOT NULL,
    data TEXT NOT NULL,
    split TEXT NOT NULL,
    resolution INTEGER NOT NULL,
    protocol TEXT NOT NULL CHECK (json_valid(protocol)),
    num_images INTEGER NOT NULL,
    num_skipped INTEGER NOT NULL,
    num_windows INTEGER NOT NULL,
    num_classes INTEGER NOT NULL,
    num_present INTEGER NOT NULL,        -- classes over which the means are taken
    miou_percent REAL,
    macc_percent REAL,
    aacc_percent REAL,
    boundary_miou_percent REAL,
    windows_per_image REAL NOT NULL,
    macs_per_image REAL,                 -- multiply-adds of the average image, windows included
    seconds REAL NOT NULL,
    evaluated_unix_seconds REAL NOT NULL,
    evaluated_at TEXT NOT NULL           -- ISO 8601
) STRICT;

CREATE INDEX evaluation_by_run ON evaluation (run_id, evaluated_unix_seconds, hash);

-- Pixels of a class over the whole split; NULL scores where the class is absent.
CREATE TABLE evaluation_class (
    evaluation_id INTEGER NOT NULL REFERENCES evaluation (evaluation_id) ON DELETE CASCADE,
    class_index INTEGER NOT NULL,
    name TEXT NOT NULL,
    true_positive INTEGER NOT NULL,
    false_positive INTEGER NOT NULL,
    false_negative INTEGER NOT NULL,
    iou_percent REAL,
    accuracy_percent REAL,
    boundary_iou_percent REAL,
    PRIMARY KEY (evaluation_id, class_index)
) STRICT, WITHOUT ROWID;

CREATE TABLE evaluation_image (
    evaluation_id INTEGER NOT NULL REFERENCES evaluation (evaluation_id) ON DELETE CASCADE,
    image_index INTEGER NOT NULL,
    name TEXT NOT NULL,
    height INTEGER NOT NULL,
    width INTEGER NOT NULL,
    num_windows INTEGER NOT NULL,
    miou_percent REAL,
    accuracy_percent REAL,
    PRIMARY KEY (evaluation_id, image_index)
) STRICT, WITHOUT ROWID;

-- Every run, one row each. best_miou_percent: of the validations while it trained, else of its evaluations.
CREATE VIEW runs AS
SELECT
    r.run_id,
    r.status,
    r.reason,
    r.backbone,
    r.timm_name,
    r.pretraining,
    r.weights,
    r.resolution AS resolution_pixels,
    r.head,
    json_extract(r.config, '$.head.num_queries') AS queries,
    json_extract(r.config, '$.head.num_classes') AS classes,
    json_extract(r.config, '$.head.l2') AS l2_requested,
    json_extract(r.config, '$.head.tap') AS tap_requested,
    json_extract(r.config, '$.head.ffn') AS ffn_requested,
    ifnull(json_extract(r.config, '$.head.prefix'), 0) AS prefix,
    r.dataset,
    r.recipe,
    r.seed,
    r.batch,
    r.num_processes,
    r.step,
    r.num_steps,
    coalesce(
        (SELECT max(m.value) FROM run_metric m WHERE m.run_key = r.run_key AND m.name = 'val/miou_percent'),
        (
            SELECT max(e.miou_percent)
            FROM evaluation e
            WHERE e.run_id = r.run_id -- on the same dataset; the splits of an unofficial one differ behind the #
                AND substr(e.data, 1, instr(e.data || '#', '#')) = substr(r.dataset, 1, instr(r.dataset || '#', '#'))
        )
    ) AS best_miou_percent,
    json_extract(r.facts, '$.params') AS params,
    json_extract(r.facts, '$.macs') AS macs,
    e.device_name,
    r.seconds,
    r.started_at,
    r.started_unix_seconds,
    r.updated_unix_seconds,
    r.folder,
    r.config,
    r.facts,
    e.identity AS environment,
    r.hash
FROM run r
JOIN environment e USING (environment_id);

-- Every number of every run, one row each.
CREATE VIEW run_curves AS
SELECT r.run_id, r.backbone, r.dataset, m.name, m.step, m.value, m.not_finite
FROM run_metric m
JOIN run r USING (run_key);

-- Every evaluation with the run that it belongs to. latest: 1 for the newest of its run, data, split and protocol.
CREATE VIEW evaluations AS
SELECT
    e.hash AS evaluation,
    e.run_id,
    r.backbone,
    r.timm_name,
    r.pretraining,
    r.weights,
    r.head,
    r.dataset AS trained_on,
    r.recipe,
    r.seed,
    e.step,
    e.data,
    e.split,
    e.resolution AS resolution_pixels,
    e.protocol,
    e.num_images,
    e.num_skipped,
    e.num_windows,
    e.num_classes,
    e.num_present,
    e.miou_percent,
    e.macc_percent,
    e.aacc_percent,
    e.boundary_miou_percent,
    e.windows_per_image,
    e.macs_per_image / 1e9 AS gmacs_per_image,
    e.seconds,
    e.evaluated_at,
    e.evaluated_unix_seconds,
    e.checkpoint_sha256,
    NOT EXISTS (
        SELECT 1
        FROM evaluation newer
        WHERE newer.run_id = e.run_id
            AND (newer.data, newer.split, newer.resolution, newer.protocol) = (e.data, e.split, e.resolution, e.protocol)
            AND (newer.run_id <> '' OR newer.checkpoint_sha256 = e.checkpoint_sha256)
            AND (newer.evaluated_unix_seconds, newer.hash) > (e.evaluated_unix_seconds, e.hash)
    ) AS latest
FROM evaluation e
LEFT JOIN run r USING (run_id);

-- Every class of every latest evaluation.
CREATE VIEW class_scores AS
SELECT
    v.evaluation,
    v.run_id,
    v.backbone,
    v.timm_name,
    v.head,
    v.step,
    v.data,
    v.split,
    v.resolution_pixels,
    c.class_index,
    c.name AS class,
    c.iou_percent,
    c.accuracy_percent,
    c.boundary_iou_percent,
    c.true_positive,
    c.false_positive,
    c.false_negative
FROM evaluations v
JOIN evaluation e ON e.hash = v.evaluation
JOIN evaluation_class c USING (evaluation_id)
WHERE v.latest;

-- Every latest evaluation of a run beside what the same model costs: one row for each way in which it was profiled,
-- or one without measurements. The same model: architecture, weights' tag, resolution and head with all its options
-- but the number of classes, which the profile may have otherwise (profiled_classes).
CREATE VIEW score_costs AS
SELECT
    v.evaluation,
    v.run_id,
    v.backbone,
    v.timm_name,
    v.pretraining,
    v.head,
    v.resolution_pixels,
    v.trained_on,
    v.recipe,
    v.seed,
    v.step,
    v.data,
    v.split,
    v.miou_percent,
    v.boundary_miou_percent,
    v.num_present,
    v.windows_per_image,
    v.gmacs_per_image,
    p.gmacs,
    coalesce(p.params, r.params) AS params,
    r.classes,
    p.classes AS profiled_classes,
    p.device_name,
    p.dtype,
    p.attention,
    p.compile,
    p.batch,
    p.throughput_images_per_second,
    p.latency_eager_p50_ms,
    p.memory_device_bytes,
    p.energy_j_per_image,
    p.hash AS profile
FROM evaluations v
JOIN runs r USING (run_id)
LEFT JOIN profiles p ON p.status = 'ok'
    AND p.part = 'all'
    AND p.timm_name = r.timm_name
    AND p.resolution_pixels = r.resolution_pixels
    AND p.head = r.head
    AND p.queries = r.queries
    AND p.l2_requested = r.l2_requested
    AND p.tap_requested = r.tap_requested
    AND p.ffn_requested = r.ffn_requested
    AND p.prefix = r.prefix
WHERE v.latest;
