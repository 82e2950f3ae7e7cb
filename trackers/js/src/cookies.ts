/** Ids in cookies instead of local storage: `newTracker("sp", url, { stateStorageStrategy: cookies({ domain: "example.com" }) })`. */
import type { StateStorage } from "./identity.js";

export interface CookieOptions {
  /** So that all its subdomains see the same visitor; default: this host alone. */
  domain?: string;
  sameSite?: "Lax" | "Strict" | "None";
  path?: string;
}

/** Secure wherever the page is HTTPS. */
export const cookies = ({ domain, sameSite = "Lax", path = "/" }: CookieOptions = {}): StateStorage => ({
  names: () => document.cookie,
  read: (name) => (document.cookie.split("; ").find((pair) => pair.startsWith(name + "=")) || "").slice(name.length + 1),
  write(name, value, seconds) {
    document.cookie =
      `${name}=${value};path=${path};max-age=${seconds};samesite=${sameSite}` +
      (location.protocol == "https:" ? ";secure" : "") +
      (domain ? ";domain=" + domain : "");
  },
});
