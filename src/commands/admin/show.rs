//! What the gateway answers, as tables for people.
//!
//! What always holds: a column is as wide as its widest cell; what the gateway does not say is a hyphen and not invented.

use serde_json::Value;

/// A column: its head, and where its value is.
pub(super) type Column = (&'static str, &'static str);

/// The columns of a connection.
pub(super) const CONNECTIONS: &[Column] = &[
    ("USER", "/user"),
    ("DEVICE", "/device"),
    ("STATE", "/connection/state"),
    ("SINCE", "/since_ms"),
    ("HEARD", "/connection/heard_ms"),
    ("BEHIND", "/connection/rows_behind"),
    ("OUTBOX", "/connection/outbox_bytes"),
    ("SHARD", "/connection/shard"),
    ("PEER", "/connection/peer"),
];

/// Those of a user's session.
pub(super) const SESSIONS: &[Column] = &[
    ("DEVICE", "/device"),
    ("NODE", "/node"),
    ("STATE", "/connection/state"),
    ("SINCE", "/since_ms"),
    ("HEARD", "/connection/heard_ms"),
    ("BEHIND", "/connection/rows_behind"),
    ("ACKED", "/connection/acknowledged_seq"),
    ("OUTBOX", "/connection/outbox_bytes"),
    ("PEER", "/connection/peer"),
];

/// Those of what happened to a user.
pub(super) const EVENTS: &[Column] = &[
    ("AGO", "/at_ms"),
    ("TIMES", "/times"),
    ("EVENT", "/event"),
    ("WHY", "/why"),
    ("DEVICE", "/device"),
    ("CONNECTION", "/connection"),
    ("SHARD", "/shard"),
];

/// Those of somebody a message was for.
pub(super) const RECIPIENTS: &[Column] = &[
    ("USER", "/user"),
    ("ROW", "/seq"),
    ("SESSIONS", "/sessions"),
    ("ACKNOWLEDGED", "/acknowledged"),
    ("LACKING", "/lacking"),
];

/// Those of a user's group.
pub(super) const GROUPS: &[Column] =
    &[("GROUP", "/group"), ("ROLE", "/role"), ("MEMBERS", "/members_count"), ("VERSION", "/version")];

/// Those of a setting.
pub(super) const SETTINGS: &[Column] = &[
    ("SETTING", "/setting"),
    ("VALUE", "/value"),
    ("ORIGIN", "/origin"),
    ("CHANGES", "/changes"),
    ("NEXT", "/next_value"),
];

/// Those of an endpoint.
pub(super) const WEBHOOKS: &[Column] = &[
    ("WEBHOOK", "/webhook"),
    ("STATE", "/state"),
    ("BEHIND", "/behind_bytes"),
    ("TOLD", "/events_total"),
    ("FAILED", "/failures_total"),
    ("FAILURE", "/last_failure"),
    ("URL", "/url"),
];

/// A table with a line for each row; columns whose pointer ends in `_ms` are moments, and shown as how long ago.
pub(super) fn table(columns: &[Column], rows: &[Value], now_ms: u64) -> String {
    let heads = columns.iter().map(|(head, _)| (*head).to_owned()).collect();
    let mut lines: Vec<Vec<String>> = vec![heads];
    lines.extend(rows.iter().map(|row| columns.iter().map(|(_, at)| cell(row.pointer(at), at, now_ms)).collect()));
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Every field of an object, a line each, and those of objects in it under their common name.
pub(super) fn fields(value: &Value, name: &str, out: &mut String) {
    match value {
        Value::Object(all) => {
            for (field, value) in all {
                let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                fields(value, &name, out);
            }
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            out.push_str(&format!("{name}: {}\n", items.join(" ")));
        }
        other => out.push_str(&format!("{name}: {}\n", plain(other))),
    }
}

fn cell(value: Option<&Value>, at: &str, now_ms: u64) -> String {
    match value {
        Some(Value::Number(ms)) if at.ends_with("_ms") => {
            let ago_s = now_ms.saturating_sub(ms.as_u64().unwrap_or(now_ms)) / 1_000;
            humantime::format_duration(std::time::Duration::from_secs(ago_s)).to_string()
        }
        Some(value) => plain(value),
        None => "-".to_owned(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(item).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// One of several: a session is its device, with what is known of what it was given.
fn item(value: &Value) -> String {
    let Some(device) = value["device"].as_str() else { return plain(value) };
    let given = match value["pushed"].as_bool() {
        Some(true) => "pushed",
        Some(false) => "not yet",
        None => "elsewhere",
    };
    format!("{device} ({given})")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_what_is_not_there_is_a_hyphen() {
        let rows = [json!({"user": "7", "since_ms": 1_000}), json!({"user": "18446744073709551615"})];
        let table = table(&[("USER", "/user"), ("SINCE", "/since_ms")], &rows, 62_000);
        assert_eq!(table, "USER                  SINCE\n7                     1m 1s\n18446744073709551615  -\n");
    }

    #[test]
    fn fields_of_objects_have_their_names_before_them() {
        let mut text = String::new();
        fields(&json!({"a": {"b": 1, "c": "x"}, "d": ["1", "2"]}), "", &mut text);
        assert_eq!(text, "a.b: 1\na.c: x\nd: 1 2\n");
    }
}
