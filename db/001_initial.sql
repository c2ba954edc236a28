-- Schema 1: what was measured, where, and the numbers with the samples behind them.
--
-- The number of this file is the schema's number (PRAGMA user_version); the file is marked as luma's by
-- PRAGMA application_id. Applied whole or not at all. A shipped migration is never edited: add the next number.
--
-- Hashes are hex SHA-256 of the row's content. They, not the integer keys, say what is the same row in two files.
-- JSON columns are what rows are read back from; the plain columns beside them repeat what people filter and sort by.

PRAGMA application_id = 1280658753; -- 0x4C554D41, 'LUMA'

-- Where a measurement ran, as far as it decides whether two rows may be compared: GPU model, driver, versions.
CREATE TABLE environment (
    environment_id INTEGER PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE CHECK (length(hash) = 64),
    device_name TEXT NOT NULL,
    identity TEXT NOT NULL CHECK (json_valid(identity))
) STRICT;

CREATE INDEX environment_by_device ON environment (device_name);

-- What else is known of that moment: GPU UUID, host, revision, clocks. Stored, never compared.
CREATE TABLE provenance (
    provenance_id INTEGER PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE CHECK (length(hash) = 64),
    json TEXT NOT NULL CHECK (json_valid(json))
) STRICT;

-- What was asked for. batch 0 means that the plateau batch is searched; resolution is the side in pixels.
CREATE TABLE configuration (
    configuration_id INTEGER PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE CHECK (length(hash) = 64),
    backbone TEXT NOT NULL,
    timm_name TEXT NOT NULL,
    family TEXT NOT NULL,
    pretraining TEXT NOT NULL,
    weights TEXT NOT NULL,
    resolution INTEGER NOT NULL,
    head TEXT NOT NULL,
    queries INTEGER NOT NULL,
    classes INTEGER NOT NULL,
    l2 INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    dtype TEXT NOT NULL,
    attention TEXT NOT NULL,
    compile TEXT NOT NULL,
    channels_last TEXT NOT NULL,
    device TEXT NOT NULL,
    part TEXT NOT NULL,
    seed INTEGER NOT NULL,
    backbone_hash TEXT NOT NULL, -- of the user's own module, empty for timm's
    tag TEXT NOT NULL,
    json TEXT NOT NULL CHECK (json_valid(json))
) STRICT;

CREATE INDEX configuration_by_timm_name ON configuration (timm_name, resolution);

-- One try at a configuration. fingerprint joins tries that measured the same thing in comparable places.
CREATE TABLE attempt (
    attempt_id INTEGER PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE CHECK (length(hash) = 64),
    fingerprint TEXT NOT NULL CHECK (length(fingerprint) = 64),
    configuration_id INTEGER NOT NULL REFERENCES configuration (configuration_id),
    environment_id INTEGER NOT NULL REFERENCES environment (environment_id),
    provenance_id INTEGER NOT NULL REFERENCES provenance (provenance_id),
    status TEXT NOT NULL CHECK (status IN ('ok', 'oom', 'crashed', 'timeout', 'not_applicable', 'failed')),
    started_unix_seconds REAL NOT NULL, -- started_at as a number, or the time of saving where that is empty
    started_at TEXT NOT NULL,           -- ISO 8601
    seconds REAL NOT NULL,
    batch INTEGER,                      -- images per call behind the throughput
    plan TEXT NOT NULL,                 -- the sweep that asked for this try
    device_index INTEGER,               -- which of the machine's devices ran it
    device_uuid TEXT NOT NULL,
    macs INTEGER,                       -- multiply-adds per image
    backbone_macs INTEGER,
    head_macs INTEGER,
    params INTEGER,
    backbone_params INTEGER,
    head_params INTEGER,
    flops_complete INTEGER CHECK (flops_complete IN (0, 1)), -- 0: macs is a lower bound
    ffn TEXT,
    tap TEXT,
    throughput_images_per_second REAL,  -- medians of metrics, repeated for reading many attempts fast
    throughput_noisy INTEGER,
    latency_eager_p50_ms REAL,
    latency_eager_noisy INTEGER,
    memory_allocated_bytes REAL,
    memory_device_bytes REAL,
    energy_j_per_image REAL,
    energy_noisy INTEGER,
    throttled INTEGER CHECK (throttled IN (0, 1)), -- the device held its clocks down for heat
    shared INTEGER CHECK (shared IN (0, 1)),       -- another process used the device
    reason TEXT NOT NULL
) STRICT;

CREATE INDEX attempt_by_fingerprint ON attempt (fingerprint, started_unix_seconds, hash);
CREATE INDEX attempt_by_configuration ON attempt (configuration_id);
CREATE INDEX attempt_by_environment ON attempt (environment_id);
CREATE INDEX attempt_by_provenance ON attempt (provenance_id);
CREATE INDEX attempt_by_plan ON attempt (plan) WHERE plan <> '';

-- All facts and notes of an attempt; apart, so that reading the numbers of many attempts stays fast.
CREATE TABLE detail (
    attempt_id INTEGER PRIMARY KEY REFERENCES attempt (attempt_id) ON DELETE CASCADE,
    facts TEXT NOT NULL CHECK (json_valid(facts)),
    notes TEXT NOT NULL CHECK (json_valid(notes))
) STRICT;

-- A measured quantity: median with its 95% interval, 90th percentile, number of samples, in `unit`.
CREATE TABLE metric (
    attempt_id INTEGER NOT NULL REFERENCES attempt (attempt_id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    unit TEXT NOT NULL,
    median REAL NOT NULL,
    ci_low REAL NOT NULL,
    ci_high REAL NOT NULL,
    p90 REAL,
    n INTEGER NOT NULL,
    noisy INTEGER NOT NULL CHECK (noisy IN (0, 1)),
    PRIMARY KEY (attempt_id, name)
) STRICT, WITHOUT ROWID;

-- The samples behind a metric in the order they were taken: little-endian float64, in the metric's unit.
CREATE TABLE sample (
    attempt_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    samples BLOB NOT NULL CHECK (length(samples) > 0 AND length(samples) % 8 = 0),
    PRIMARY KEY (attempt_id, name),
    FOREIGN KEY (attempt_id, name) REFERENCES metric (attempt_id, name) ON DELETE CASCADE
) STRICT;

-- Every attempt, one row each, units in the column names.
CREATE VIEW attempts AS
SELECT
    a.attempt_id,
    a.status,
    c.backbone,
    c.timm_name,
    c.family,
    c.pretraining,
    c.weights,
    c.resolution AS resolution_pixels,
    c.head,
    a.ffn,
    a.tap,
    c.queries,
    c.classes,
    c.l2,
    c.part,
    c.device,
    e.device_name,
    c.dtype,
    c.attention,
    c.compile,
    c.channels_last,
    c.batch AS batch_requested,
    a.batch,
    a.macs,
    a.macs / 1e9 AS gmacs,
    a.backbone_macs / 1e9 AS backbone_gmacs,
    a.head_macs / 1e9 AS head_gmacs,
    a.flops_complete,
    a.params,
    a.backbone_params,
    a.head_params,
    a.throughput_images_per_second,
    (SELECT ci_low FROM metric m WHERE m.attempt_id = a.attempt_id AND m.name = 'throughput') AS throughput_ci_low_images_per_second,
    (SELECT ci_high FROM metric m WHERE m.attempt_id = a.attempt_id AND m.name = 'throughput') AS throughput_ci_high_images_per_second,
    a.latency_eager_p50_ms,
    (SELECT p90 FROM metric m WHERE m.attempt_id = a.attempt_id AND m.name = 'latency_eager') AS latency_eager_p90_ms,
    (SELECT median FROM metric m WHERE m.attempt_id = a.attempt_id AND m.name = 'latency_cuda_graph') AS latency_cuda_graph_p50_ms,
    (SELECT p90 FROM metric m WHERE m.attempt_id = a.attempt_id AND m.name = 'latency_cuda_graph') AS latency_cuda_graph_p90_ms,
    a.memory_allocated_bytes,
    (SELECT median FROM metric m WHERE m.attempt_id = a.attempt_id AND m.name = 'memory_reserved') AS memory_reserved_bytes,
    a.memory_device_bytes,
    (SELECT median FROM metric m WHERE m.attempt_id = a.attempt_id AND m.name = 'memory_allocated_plateau') AS memory_allocated_plateau_bytes,
    (SELECT median FROM metric m WHERE m.attempt_id = a.attempt_id AND m.name = 'memory_reserved_plateau') AS memory_reserved_plateau_bytes,
    (SELECT median FROM metric m WHERE m.attempt_id = a.attempt_id AND m.name = 'memory_device_plateau') AS memory_device_plateau_bytes,
    a.energy_j_per_image,
    a.throughput_noisy,
    a.latency_eager_noisy,
    a.energy_noisy,
    a.throttled,
    a.shared,
    c.seed,
    c.backbone_hash,
    c.tag,
    a.reason,
    a.plan,
    a.device_index,
    a.device_uuid,
    a.started_at,
    a.started_unix_seconds,
    a.seconds,
    e.identity AS environment,
    a.fingerprint,
    a.hash
FROM attempt a
JOIN configuration c USING (configuration_id)
JOIN environment e USING (environment_id);

-- The latest attempt of every fingerprint. Order is by time, then hash, so merged files agree whatever the order.
CREATE VIEW profiles AS
SELECT *
FROM attempts a
WHERE NOT EXISTS (
    SELECT 1
    FROM attempt newer
    WHERE newer.fingerprint = a.fingerprint
        AND (newer.started_unix_seconds, newer.hash) > (a.started_unix_seconds, a.hash)
);

-- Every metric of every latest attempt, one row each.
CREATE VIEW metrics AS
SELECT
    p.backbone,
    p.timm_name,
    p.resolution_pixels,
    p.head,
    p.device_name,
    p.dtype,
    m.name,
    m.median,
    m.ci_low,
    m.ci_high,
    m.p90,
    m.unit,
    m.n,
    m.noisy,
    m.attempt_id
FROM profiles p
JOIN metric m USING (attempt_id);
