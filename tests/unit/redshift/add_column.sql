ALTER TABLE "atomic"."com_snowplowanalytics_snowplow_link_click_extra_1" ADD COLUMN "new.thing" DOUBLE PRECISION ENCODE ZSTD;
