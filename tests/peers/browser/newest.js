// The newest tracker alone: its plugins are not published for it.
import * as tracker from "browser-tracker-newest";

window.peer = { ...tracker, plugins: () => [] };
