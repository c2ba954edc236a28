-- Schema 2: heads other than LUMA, and LUMA's options: how many blocks queries met, and whether they saw prefix tokens.

ALTER TABLE attempt ADD COLUMN l2 INTEGER; -- blocks that queries met; NULL where the configuration alone says it

DROP VIEW metrics;
DROP VIEW profiles;
DROP VIEW attempts;

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
    coalesce(a.l2, c.l2) AS l2,
    c.l2 AS l2_requested,
    ifnull(json_extract(c.json, '$.head.prefix'), 0) AS prefix,
    json_extract(c.json, '$.head.tap') AS tap_requested,
    json_extract(c.json, '$.head.ffn') AS ffn_requested,
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
