//! The metrics of webhooks: a value or a histogram for each endpoint, by its name.

use super::Page;
use crate::control::webhooks::status::Webhook;

/// One metric of every endpoint: name, kind, help, and where its value is.
type PerWebhook = (&'static str, &'static str, &'static str, fn(&Webhook) -> u64);

const PER_WEBHOOK: [PerWebhook; 6] = [
    (
        "ringway_webhook_failing",
        "gauge",
        "1 while an endpoint's last request has failed, or it has switched itself off",
        |w| u64::from(matches!(w.state, "retrying" | "off")),
    ),
    ("ringway_webhook_behind_bytes", "gauge", "Journal that an endpoint was not told of yet", |w| w.behind_bytes),
    ("ringway_webhook_requests_total", "counter", "Requests that an endpoint has taken", |w| w.requests_total),
    ("ringway_webhook_events_total", "counter", "Events in them", |w| w.events_total),
    ("ringway_webhook_failures_total", "counter", "Requests to an endpoint that failed", |w| w.failures_total),
    (
        "ringway_webhook_skipped_bytes_total",
        "counter",
        "Journal that was gone before an endpoint was told of it",
        |w| w.skipped_bytes_total,
    ),
];

/// As text.
pub(crate) fn text(webhooks: &[Webhook]) -> String {
    let mut page = Page { text: String::new() };
    for (name, kind, help, value) in PER_WEBHOOK {
        page.head(name, kind, help);
        for webhook in webhooks {
            page.value(name, &format!("{{webhook=\"{}\"}}", webhook.webhook), value(webhook));
        }
    }
    let labels: Vec<String> = webhooks.iter().map(|webhook| format!("webhook=\"{}\"", webhook.webhook)).collect();
    let each: Vec<_> =
        std::iter::zip(&labels, webhooks).map(|(labels, webhook)| (labels.as_str(), &webhook.requests)).collect();
    page.histogram("ringway_webhook_request_seconds", "How long an endpoint took to answer or to fail", &each);
    page.text
}
