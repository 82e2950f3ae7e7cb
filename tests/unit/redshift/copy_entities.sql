COPY "atomic"."com_snowplowanalytics_snowplow_link_click_extra_1" ("schema_vendor", "schema_name", "schema_format", "schema_version", "root_id", "root_tstamp", "ref_root", "ref_tree", "ref_parent", "target_url", "zeta", "nested.a""b", "nested.deep_name", "root_id_2")
FROM 's3://b/1.manifest'
IAM_ROLE default
MANIFEST GZIP DELIMITER '\t' TIMEFORMAT 'auto'
COMPUPDATE OFF STATUPDATE OFF MAXERROR 100000;
