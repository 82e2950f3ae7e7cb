ALTER TABLE "atomic"."com_snowplowanalytics_snowplow_link_click_extra_1" ALTER COLUMN "zeta" TYPE VARCHAR(5000);
