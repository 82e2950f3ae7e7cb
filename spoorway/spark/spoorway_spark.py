"""What spark-submit is given, where the cluster's Python has Spoorway: the job of spoorway/spark. `spoorway spark` copies it."""

from spoorway.spark.job import main

if __name__ == "__main__":
    raise SystemExit(main())
