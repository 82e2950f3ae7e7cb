/** Where values stay: the browser's local storage, or memory that ends with the page where that is wanted or all there is. */
export const storage = (where: unknown): Record<string, string> => {
  try {
    if (where != "memory") return localStorage as unknown as Record<string, string>;
  } catch {
    // forbidden here
  }
  return {};
};
