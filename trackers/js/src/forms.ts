/** Forms: focus_form, change_form and submit_form events. A password never leaves the page, nor does what `transform` takes off. */
import type { Extra, Tracker } from "./index.js";
import { iglu } from "./wire.js";

type Field = HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement;
export interface FormOptions {
  events?: ("focus_form" | "change_form" | "submit_form")[];
  /** Which fields count; default all but passwords and hidden ones. */
  filter?: (field: Field) => boolean;
  /** What is sent of a field; default its value. null sends none. */
  transform?: (value: string | null, field: Field) => string | null;
  context?: Extra["context"];
}

/** Returns what ends it. */
export const enableFormTracking = (tracker: Tracker, options: FormOptions = {}): (() => void) => {
  const wanted = options.events || ["focus_form", "change_form", "submit_form"];
  const counts = (one: EventTarget | null): one is Field =>
    one instanceof Element &&
    /^(INPUT|TEXTAREA|SELECT)$/.test(one.nodeName) &&
    !/^(password|hidden|submit|button|image|reset)$/.test((one as Field).type) &&
    (!options.filter || options.filter(one as Field));
  const value = (field: Field) => {
    const on = !/^(checkbox|radio)$/.test(field.type) || (field as HTMLInputElement).checked;
    const text = on && field.type != "file" ? field.value : null;
    return options.transform ? options.transform(text, field) : text;
  };
  const named = (one: Element & { name?: string }) => one.getAttribute("name") || one.id || "";
  // Of a SELECT the schemas know no type.
  const type = (field: Field) => (field.nodeName == "INPUT" ? field.type : undefined);
  const send = (name: string, data: object) =>
    tracker.trackSelfDescribingEvent({ event: { schema: iglu(name, "1-0-0"), data }, context: options.context ?? null });
  const notice = (event: Event) => {
    const target = event.target;
    if (event.type == "submit") {
      const form = target as HTMLFormElement;
      send("submit_form", {
        formId: named(form),
        formClasses: [...form.classList],
        elements: [...form.elements].filter(counts).map((field) => ({ name: named(field), value: value(field), nodeName: field.nodeName, type: type(field) })),
      });
    } else if (counts(target)) {
      const focus = event.type == "focusin";
      send(focus ? "focus_form" : "change_form", {
        formId: target.form ? named(target.form) : "",
        elementId: named(target),
        nodeName: target.nodeName,
        [focus ? "elementType" : "type"]: type(target),
        elementClasses: [...target.classList],
        value: value(target),
      });
    }
  };
  const names = ["focusin", "change", "submit"].filter((_, at) => wanted.includes((["focus_form", "change_form", "submit_form"] as const)[at]!));
  for (const name of names) document.addEventListener(name, notice, true);
  return () => names.forEach((name) => document.removeEventListener(name, notice, true));
};
