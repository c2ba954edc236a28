-- Schema 5: LUMA's variants, so that profiles and runs of different ones are not taken for the same.
--
-- variant: `paper-page` or `authors-2025`. mask_stride_requested: pixels per mask logit; 0 follows the map's stride.
-- design: both, and the smaller choices: layer scale, q/k/v bias, norm of the read, norm of the queries.

DROP VIEW score_costs;
DROP VIEW runs;
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
    ifnull(json_extract(c.json, '$.head.variant'), 'paper-page') AS variant,
    ifnull(json_extract(c.json, '$.head.mask_stride'), 4) AS mask_stride_requested,
    json_array(
        ifnull(json_extract(c.json, '$.head.variant'), 'paper-page'),
        ifnull(json_extract(c.json, '$.head.mask_stride'), 4),
        ifnull(json_extract(c.json, '$.head.layer_scale'), 0),
        ifnull(json_extract(c.json, '$.head.qkv_bias'), 1),
        ifnull(json_extract(c.json, '$.head.read_norm'), 'own'),
        ifnull(json_extract(c.json, '$.head.query_norm'), 1)
    ) AS design,
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
    ifnull(json_extract(r.config, '$.head.variant'), 'paper-page') AS variant,
    ifnull(json_extract(r.config, '$.head.mask_stride'), 4) AS mask_stride_requested,
    json_array(
        ifnull(json_extract(r.config, '$.head.variant'), 'paper-page'),
        ifnull(json_extract(r.config, '$.head.mask_stride'), 4),
        ifnull(json_extract(r.config, '$.head.layer_scale'), 0),
        ifnull(json_extract(r.config, '$.head.qkv_bias'), 1),
        ifnull(json_extract(r.config, '$.head.read_norm'), 'own'),
        ifnull(json_extract(r.config, '$.head.query_norm'), 1)
    ) AS design,
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
    AND p.design = r.design
WHERE v.latest;
