// The generation before, which still has transactions and the enhanced e-commerce of its day.
import * as tracker from "browser-tracker-v3";
import * as shop from "browser-plugin-ecommerce-v3";
import * as enhanced from "browser-plugin-enhanced-ecommerce-v3";
import * as forms from "browser-plugin-form-tracking-v3";
import * as links from "browser-plugin-link-click-tracking-v3";

window.peer = {
  ...tracker, ...shop, ...enhanced, ...forms, ...links,
  plugins: () => [
    shop.EcommercePlugin(), enhanced.EnhancedEcommercePlugin(), forms.FormTrackingPlugin(), links.LinkClickTrackingPlugin(),
  ],
};
