# %% [markdown]
# # A notebook on stored events
#
# Opens in Jupyter, VS Code and any editor that knows `# %%` cells; it is a program as well:
# `python examples/notebook/shop_and_greenhouse.py spoorway-data`. Needs `pip install spoorway[duckdb] pandas`, or polars.

# %%
import sys
from pathlib import Path

import pandas as pd

from spoorway import asking, building, stores

DATA = Path(sys.argv[1] if len(sys.argv) > 1 and Path(sys.argv[1]).is_dir() else "spoorway-data")
store = stores.Sqlite(DATA / "events.db")


def ask(name: str, **given: str) -> pd.DataFrame:
    """A question of `spoorway ask list` as a table; times become times."""
    answer = asking.ask(store, asking.named(name), given, building.now_ms())
    frame = pd.DataFrame(answer.rows, columns=list(answer.names))
    for column in frame.columns.intersection(["day", "step", "moment", "last_seen"]):
        frame[column] = pd.to_datetime(frame[column], utc=True)
    return frame


# %% [markdown]
# ## Ready questions

# %%
visits = ask("sessions", since="30d", app="shop").set_index("day")
print("visits a day, mean of seven:")
print(visits["sessions"].rolling(7, min_periods=1).mean().round(1).tail())

# %%
sources = ask("attribution", since="30d")
print("\nwhat an order is worth, by where its buyer came from:")
print((sources.groupby("medium")["value"].sum() / sources.groupby("medium")["shared"].sum()).round(2))

# %% [markdown]
# ## Sensors: one column each, gaps filled, the warmest hour of the day

# %%
readings = ask("sensor_series", since="14d", step_s="3600")
beds = readings.pivot(index="step", columns="device", values="mean").resample("1h").mean().interpolate(limit=6)
print(f"\n{beds.shape[1]} sensors; the warmest hour: {beds.mean(axis=1).groupby(beds.index.hour).mean().idxmax()}:00")

# %% [markdown]
# ## SQL of your own, over Parquet, with DuckDB
#
# `spoorway export --format parquet --output events.parquet` once; a million rows answer in milliseconds.

# %%
if (DATA / "events.parquet").exists():
    import duckdb

    query = f"SELECT event_name, count(*) AS events FROM '{DATA / 'events.parquet'}' GROUP BY ALL ORDER BY events DESC LIMIT 5"
    print("\nof the exported file:")
    print(duckdb.sql(query).df().to_string(index=False))

# %% [markdown]
# ## The same with polars

# %%
try:
    import polars as pl
except ModuleNotFoundError:
    print("\npolars is not installed; nothing else needs it")
else:
    answer = asking.ask(store, asking.named("levels"), {"since": "30d"}, building.now_ms())
    levels = pl.DataFrame(answer.rows, schema=list(answer.names), orient="row", infer_schema_length=None)
    print(levels.select("level", "players", (pl.col("failed") / pl.col("tries")).round(2).alias("fails")))

store.close()
