//! `--format`: a table, JSON lines, or a template, over rows of named values.

use super::table;
use crate::failure::{Failure, Result};
use crate::template::{Missing, Template, Value};

/// How rows are to be shown.
pub(crate) struct Format {
    template: Option<Template>,
    table: bool,
}

/// A column's name in templates, and its title.
pub(crate) type Titles = &'static [(&'static str, &'static str)];

impl Format {
    /// Reads `--format`. Without one the table is `columns`, a template such as
    /// `{{.ID}}\t{{.Names}}`; with `quiet` only `id` is shown.
    pub(crate) fn choose(
        asked: Option<&str>,
        quiet: bool,
        columns: &str,
        id: &str,
    ) -> Result<Self> {
        let (text, table) = match asked.filter(|text| !text.is_empty()) {
            None | Some("table") if quiet => (id.to_owned(), false),
            None | Some("table") => (columns.to_owned(), true),
            Some("json") => return Ok(Self { template: None, table: false }),
            Some(text) => match text.strip_prefix("table ") {
                Some(text) => (text.trim().to_owned(), true),
                None => (text.to_owned(), false),
            },
        };
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let template = Template::parse(&text).map_err(Failure::said)?;
        Ok(Self { template: Some(template), table })
    }

    /// The rows as text; a table has `titles` on top.
    pub(crate) fn render(&self, titles: Titles, rows: &[Value]) -> Result<String> {
        let mut text = String::new();
        let Some(template) = &self.template else {
            for row in rows {
                text.push_str(&sorted_json(row));
                text.push('\n');
            }
            return Ok(text);
        };
        if self.table {
            text.push_str(&template.render_titles(&titles_row(titles)).map_err(Failure::said)?);
            text.push('\n');
        }
        for row in rows {
            let line = template.render(row, Missing::NoValue).map_err(Failure::said)?;
            text.push_str(&line);
            text.push('\n');
        }
        Ok(if self.table { table::align(&text) } else { text })
    }

    /// Renders and prints.
    pub(crate) fn print(&self, titles: Titles, rows: &[Value]) -> Result<()> {
        super::out(self.render(titles, rows)?.as_bytes());
        Ok(())
    }
}

/// A row of named texts.
pub(crate) fn row(entries: Vec<(&str, Value)>) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// A value as its template shows it, or as JSON.
pub(crate) fn one(value: &Value, asked: &str) -> Result<String> {
    if asked == "json" {
        return Ok(value.json());
    }
    let text = asked.replace("\\t", "\t").replace("\\n", "\n");
    Template::parse(&text)
        .and_then(|template| template.render(value, Missing::Error))
        .map_err(Failure::said)
}

fn titles_row(titles: Titles) -> Value {
    row(titles.iter().map(|(key, title)| (*key, Value::text(*title))).collect())
}

/// Rows are written with their names in order.
fn sorted_json(row: &Value) -> String {
    let mut entries = row.entries().to_vec();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Value::Map(entries).json()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLES: Titles = &[("ID", "CONTAINER ID"), ("Names", "NAMES")];

    fn show(asked: Option<&str>, quiet: bool) -> String {
        let rows = [
            row(vec![("Names", "web".into()), ("ID", "abc".into())]),
            row(vec![
                ("Names", "db".into()),
                ("ID", "def".into()),
                ("Label", Value::Lookup(vec![("k".to_owned(), "v".to_owned())])),
            ]),
        ];
        Format::choose(asked, quiet, "{{.ID}}\t{{.Names}}", "{{.ID}}")
            .and_then(|format| format.render(TITLES, &rows))
            .unwrap_or_else(|failure| failure.text)
    }

    #[test]
    fn rows_are_shown_in_every_form() {
        assert_eq!(
            show(None, false),
            "CONTAINER ID   NAMES\nabc            web\ndef            db\n"
        );
        assert_eq!(show(None, true), "abc\ndef\n");
        assert_eq!(show(Some("{{.Names}}!"), false), "web!\ndb!\n");
        assert_eq!(
            show(Some("table {{.Names}}\\t{{upper .ID}}"), false),
            "NAMES     CONTAINER ID\nweb       ABC\ndb        DEF\n"
        );
        assert_eq!(
            show(Some("json"), false),
            "{\"ID\":\"abc\",\"Names\":\"web\"}\n{\"ID\":\"def\",\"Names\":\"db\"}\n"
        );
        assert!(show(Some("{{.ID"), false).contains("unclosed action"));
    }

    #[test]
    fn a_label_is_asked_for_by_name() {
        let labelled =
            [row(vec![("Label", Value::Lookup(vec![("k".to_owned(), "v".to_owned())]))])];
        let format = Format::choose(Some("table {{.Label \"k\"}}"), false, "", "")
            .unwrap_or_else(|_| panic!("template"));
        assert_eq!(format.render(&[("Label", "")], &labelled).unwrap_or_default(), "k\nv\n");
    }
}
