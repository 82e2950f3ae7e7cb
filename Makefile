# The README's two commands are `make demo` and `make test`; both set up what they need.
SHELL := /bin/bash
PY := .venv/bin/python
.DEFAULT_GOAL := help
comma := ,
# Compiled modules are kept, whatever the environment says: the tests start the product about a thousand times.
export PYTHONDONTWRITEBYTECODE :=

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

.venv/installed: pyproject.toml tools/venv
	@tools/venv

venv: .venv/installed

runtimes: venv  ## the other programs that tests and the demo run: Chromium, nginx, wrk, npm packages
	@tools/runtimes

demo: venv  ## real events from a browser, sensors and an app, then three answers in SQL
	@$(PY) examples/demo/run.py

test: venv runtimes generate-check  ## linters, types and every test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/pyright
	$(PY) -m pytest -n 3 --dist loadscope --cache-clear --durations 40 --durations-min 4 || $(PY) tools/again.py $$?

generate: venv  ## write the blocks other files hold of columns.json and parameters.json
	@$(PY) tools/generate.py

generate-check: venv
	@$(PY) tools/generate.py --check

check: venv generate-check  ## linters and types only
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/pyright

.venv/bench: .venv/installed
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

bench: venv runtimes .venv/bench  ## what it costs, with the peers beside it; writes benchmarks/results
	$(PY) -m benchmarks

powercuts: venv  ## 10,000 power cuts of the journal in a model of the disk
	$(PY) -m tests.faults.powercuts --states 10000 --seed 1

kills: venv  ## kill -9 of the running product under load, 100 times
	$(PY) tests/faults/kills.py --rounds 100
	$(PY) -m tests.faults.serial_kills --rounds 50
	$(PY) -m tests.faults.mqtt_kills --rounds 50

archive-kills: venv  ## kill -9 of whoever archives, in a folder and in S3, and of the product with its archive
	$(PY) -m tests.faults.archive_kills --rounds 200 --product-rounds 30

histories: venv  ## 10,000 made-up lives of devices: the true time always lies within the bounds
	SPOORWAY_DEVICE_HISTORIES=10000 $(PY) -m pytest -q tests/unit/test_device_time_histories.py

fuzz: venv  ## a million damaged inputs for each decoder of what comes from outside
	$(PY) -m tests.faults.fuzz --inputs 1000000 --seed 1

pixel-storm: venv runtimes  ## 10,000 events in URLs, stored byte for byte; 100,000 altered links, none leads anywhere
	SPOORWAY_PIXEL_EVENTS=10000 SPOORWAY_PIXEL_LINKS=100000 $(PY) -m pytest -q tests/trackers/pixel/test_pixel_gateway.py

powercuts-micropython: venv runtimes  ## 2,000 power cuts of the MicroPython tracker's queue, on littlefs and against a real gateway
	$(PY) -m tests.trackers.micropython.cuts --cuts 2000 --seed 1

powercuts-arduino: venv runtimes  ## 10,000 power cuts of an emulated Uno with an EEPROM journal, against a real gateway; half an hour
	$(PY) -m tests.trackers.arduino.powercuts --cuts 10000 --seed 1

powercuts-arduino-files: venv runtimes  ## 1,500 power cuts of the Arduino library's journal in files, on littlefs and against a real gateway
	$(PY) -m tests.trackers.arduino.filecuts --cuts 1500 --seed 1

sizes: venv runtimes  ## what the trackers for boards take of them, beside their goals and their peers
	$(PY) -m tests.trackers.micropython.sizes
	node trackers/js/sizes.mjs
	$(PY) -m tests.trackers.arduino.sizes

chaos-js: venv runtimes  ## 200 lives of browser tabs in bad weather, 500 pages left in a hurry: no event lost or doubled
	$(PY) -m tests.faults.js_tabs --schedules 200 --navigations 500

.venv/spark .venv/spark35: .venv/installed pyproject.toml
	@$(PY) -m venv $@
	@$@/bin/pip install --quiet --disable-pip-version-check -e '.[spark,geo]' setuptools 'pyspark$(if $(findstring 35,$@),>=3.5$(comma)<4,>=4$(comma)<5)'
	@touch $@

spark: .venv/spark .venv/spark35  ## Spark 3.5 and 4: the job equals one machine, killed or not; Spark SQL reads the result. 1 GB, Java 17
	$(PY) -m tests.spark.job_runs --events 100000
	.venv/spark/bin/python -m tests.spark.lake_tables

relay-kills: venv  ## kill -9 of two gateways, one forwarding to the other, 50 times
	$(PY) -m tests.faults.relay_kills --rounds 50

chaos-kinesis: venv runtimes  ## the journal in Kinesis: records refused, answers lost, shards split and merged, readers that stall, 20 rounds
	$(PY) -m tests.faults.kinesis_storm --rounds 20 --seed 1

chaos-cluster: venv runtimes  ## three gateways, two workers and Kafka, each killed or stalled at random for 10 minutes
	$(PY) -m tests.faults.cluster --minutes 10

postgres-kills: venv runtimes  ## kill -9 and outages of the product and its PostgreSQL under load, 100 times
	$(PY) -m tests.faults.postgres_kills --rounds 100

kafka-kills: venv runtimes  ## kill -9 and outages of the product and its Kafka under load, 50 times
	$(PY) -m tests.faults.kafka_kills --rounds 50

access-log-kills: venv  ## kill -9 while an access log is written, rotated and packed, 100 times
	$(PY) -m tests.faults.access_log_kills --rounds 100

kills-lua: venv runtimes  ## kill -9 of a program with the Lua tracker, 1,000 times
	$(PY) -m tests.trackers.lua.lua_kills --rounds 1000

scale: venv runtimes .venv/bench  ## 10 million events in SQLite and in a lake: loading, erasing, expiring, backup, merging; needs 30 GB
	$(PY) -m benchmarks scale

erase-kills: venv  ## kill -9 of an erasure, of the product or of both, 50 times: nobody comes back, nobody else goes
	SPOORWAY_ERASE_KILLS=50 $(PY) -m pytest -q tests/end_to_end/test_keeping.py -k killed

kills-python: venv  ## kill -9 of programs that track at full speed with the Python tracker, 1,000 times
	$(PY) -m tests.trackers.python.python_kills --rounds 1000

image-steps: venv  ## what deploy/Dockerfile does, in a folder: everything is fetched and installed; no container engine is needed
	$(PY) -m tests.end_to_end.image_steps

.PHONY: chaos-kinesis image-steps kafka-kills chaos-cluster scale erase-kills postgres-kills spark archive-kills access-log-kills chaos-js kills-python kills-lua help venv runtimes demo test generate generate-check check bench powercuts kills histories fuzz powercuts-micropython powercuts-arduino powercuts-arduino-files sizes relay-kills pixel-storm
