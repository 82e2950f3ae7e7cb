CREATE TABLE "atomic"."com_snowplowanalytics_snowplow_link_click_extra_1" (
    "schema_vendor" VARCHAR(128) ENCODE ZSTD NOT NULL,
    "schema_name" VARCHAR(128) ENCODE ZSTD NOT NULL,
    "schema_format" VARCHAR(128) ENCODE ZSTD NOT NULL,
    "schema_version" VARCHAR(128) ENCODE ZSTD NOT NULL,
    "root_id" CHAR(36) ENCODE ZSTD NOT NULL,
    "root_tstamp" TIMESTAMP ENCODE RAW NOT NULL,
    "ref_root" VARCHAR(255) ENCODE ZSTD NOT NULL,
    "ref_tree" VARCHAR(1500) ENCODE ZSTD NOT NULL,
    "ref_parent" VARCHAR(255) ENCODE ZSTD NOT NULL,
    "target_url" VARCHAR(4000) ENCODE ZSTD,
    "zeta" VARCHAR(4096) ENCODE ZSTD,
    "nested.a""b" BOOLEAN ENCODE ZSTD,
    "nested.deep_name" SMALLINT ENCODE ZSTD,
    "root_id_2" CHAR(36) ENCODE ZSTD
)
DISTSTYLE KEY
DISTKEY (root_id)
SORTKEY (root_tstamp);
