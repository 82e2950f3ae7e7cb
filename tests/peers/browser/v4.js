// The generation in wide use, with its plugins, under one name.
import * as tracker from "@snowplow/browser-tracker";
import * as forms from "@snowplow/browser-plugin-form-tracking";
import * as links from "@snowplow/browser-plugin-link-click-tracking";
import * as site from "@snowplow/browser-plugin-site-tracking";
import * as shop from "@snowplow/browser-plugin-snowplow-ecommerce";

window.peer = {
  ...tracker, ...forms, ...links, ...site, ...shop,
  plugins: () => [
    forms.FormTrackingPlugin(), links.LinkClickTrackingPlugin(), site.SiteTrackingPlugin(), shop.SnowplowEcommercePlugin(),
  ],
};
