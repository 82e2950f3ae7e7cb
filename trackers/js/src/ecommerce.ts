/** A shop's events: snowplow_ecommerce_action with its products, cart, transaction and the like as entities. */
import type { Extra, SelfDescribing, Tracker } from "./index.js";

export interface Product {
  id: string;
  category: string;
  price: number;
  currency: string;
  name?: string;
  list_price?: number;
  quantity?: number;
  size?: string;
  variant?: string;
  brand?: string;
  inventory_status?: string;
  position?: number;
  creative_id?: string;
}
export interface Transaction {
  transaction_id: string;
  revenue: number;
  currency: string;
  payment_method: string;
  /** Default: the quantities of the products. */
  total_quantity?: number;
  tax?: number;
  shipping?: number;
  discount_code?: string;
  discount_amount?: number;
  credit_order?: boolean;
}
interface Cart {
  total_value: number;
  currency: string;
  cart_id?: string;
}
type Some = { products?: Product[] } & Extra;

const uri = (name: string, version = "1-0-0") => `iglu:com.snowplowanalytics.snowplow.ecommerce/${name}/jsonschema/${version}`;
const entity = (name: string, data: unknown): SelfDescribing => ({ schema: uri(name), data });
const act = (tracker: Tracker, type: string, { products = [], ...extra }: Some, own: SelfDescribing[] = [], name?: string) =>
  tracker.trackSelfDescribingEvent({
    ...extra,
    event: { schema: uri("snowplow_ecommerce_action", "1-0-2"), data: { type, name } },
    context: [...own, ...products.map((product) => entity("product", product)), ...(extra.context || [])],
  });
const split = <Own>(event: Own & Some): [Own, Some] => {
  const { products, context, timestamp, ...own } = event;
  return [own as unknown as Own, { products: products ?? [], context: context ?? null, timestamp: timestamp ?? null }];
};

export const trackProductView = (tracker: Tracker, event: Product & Extra) => {
  const [product, extra] = split(event as Product & Some);
  return act(tracker, "product_view", { ...extra, products: [product] });
};
export const trackAddToCart = (tracker: Tracker, event: Cart & Some) => {
  const [cart, extra] = split(event);
  return act(tracker, "add_to_cart", extra, [entity("cart", cart)]);
};
export const trackRemoveFromCart = (tracker: Tracker, event: Cart & Some) => {
  const [cart, extra] = split(event);
  return act(tracker, "remove_from_cart", extra, [entity("cart", cart)]);
};
export const trackCheckoutStep = (tracker: Tracker, event: Record<string, unknown> & { step: number } & Extra) => {
  const [step, extra] = split(event as never);
  return act(tracker, "checkout_step", extra, [entity("checkout_step", step)]);
};
export const trackTransaction = (tracker: Tracker, event: Transaction & Some) => {
  const [transaction, extra] = split(event);
  const total_quantity = extra.products!.reduce((sum, { quantity = 1 }) => sum + quantity, 0);
  return act(tracker, "transaction", extra, [entity("transaction", { total_quantity, ...transaction })]);
};
export const trackRefund = (tracker: Tracker, event: Record<string, unknown> & { transaction_id: string } & Some) => {
  const [refund, extra] = split(event as never);
  return act(tracker, "refund", extra, [entity("refund", refund)]);
};
export const trackProductListView = (tracker: Tracker, { name, ...event }: { products: Product[]; name: string } & Extra) =>
  act(tracker, "list_view", event, [], name);
export const trackProductListClick = (tracker: Tracker, { name, product, ...event }: { product: Product; name: string } & Extra) =>
  act(tracker, "list_click", { ...event, products: [product] }, [], name);
