//! The part of Go's text/template that `--format` needs.
//!
//! Fields, variables, pipelines, `if`/`else if`/`else`, `range`, `with`, `break`,
//! `continue`, comments, `{{-` and `-}}`, and the functions that Docker adds to Go's
//! own (join, json, lower, pad, split, title, truncate, upper). Templates that
//! define or call other templates are refused.

mod eval;
mod functions;
mod lex;
mod parse;
mod value;

pub(crate) use value::{Value, quote_json};

use parse::Node;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

/// What happens when a key isn't there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Missing {
    /// It prints as `<no value>`.
    NoValue,
    /// It's an error, except below a key that users fill (labels, options and the like).
    Error,
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let tokens = lex::split(text)
            .map_err(|why| format!("template parsing error: template: :1: {why}"))?;
        let nodes = parse::parse(tokens)
            .map_err(|why| format!("template parsing error: template: :1: {why}"))?;
        Ok(Self { nodes })
    }

    /// Fills it in.
    pub(crate) fn render(&self, data: &Value, missing: Missing) -> Result<String, String> {
        eval::render(&self.nodes, data, missing, false).map_err(|why| {
            let gap = if why.starts_with("at <") { " " } else { ": " };
            format!("template parsing error: template: :1: executing \"\"{gap}{why}")
        })
    }

    /// Fills in column titles: functions leave them as they are.
    pub(crate) fn render_titles(&self, titles: &Value) -> Result<String, String> {
        eval::render(&self.nodes, titles, Missing::NoValue, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, json: &str) -> String {
        let value: Value = serde_json::from_str(json).unwrap();
        match Template::parse(template) {
            Ok(template) => {
                template.render(&value, Missing::NoValue).unwrap_or_else(|why| format!("ERR {why}"))
            }
            Err(why) => format!("BAD {why}"),
        }
    }

    #[test]
    fn templates_render_as_go_renders_them() {
        let data = r#"{"Name":"web","N":3,"L":["a","b"],"M":{"k":"v","j":"w"},"E":"","State":{"Status":"running","Health":null},
            "NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}},"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]}}}"#;
        for (template, want) in [
            ("{{.Name}}", "web"),
            ("{{ .Name | upper }}!", "WEB!"),
            ("{{json .L}}", r#"["a","b"]"#),
            ("{{range .L}}<{{.}}>{{end}}", "<a><b>"),
            ("{{range $i, $e := .L}}{{$i}}={{$e}} {{end}}", "0=a 1=b "),
            ("{{range $k, $v := .M}}{{$k}}:{{$v}},{{end}}", "j:w,k:v,"),
            ("{{range .E}}x{{else}}none{{end}}", "none"),
            ("{{if .E}}a{{else if eq .N 3}}b{{else}}c{{end}}", "b"),
            ("{{with .State}}{{.Status}}{{end}}", "running"),
            ("{{if .State.Health}}{{.State.Health.Status}}{{else}}-{{end}}", "-"),
            ("{{join .L \", \"}}", "a, b"),
            ("{{index .M \"k\"}}{{index .L 1}}", "vb"),
            ("{{len .L}} {{len .Name}}", "2 3"),
            (
                "{{printf \"%s-%03d-%q-%v-%5s|%-5s|%x\" .Name .N .Name .L \"ab\" \"ab\" 255}}",
                "web-003-\"web\"-[a b]-   ab|ab   |ff",
            ),
            ("a {{- .Name -}} b", "awebb"),
            ("{{/* note */}}x", "x"),
            ("{{println .Name}}", "web\n"),
            ("{{.Missing}}", "<no value>"),
            ("{{and .Name .E}}|{{or .E \"d\"}}|{{not .E}}", "|d|true"),
            (
                "{{lt 1 2}}{{ge 2 2}}{{ne .Name \"x\"}}{{eq .Name \"a\" \"web\"}}",
                "truetruetruetrue",
            ),
            ("{{title \"hello world\"}}{{lower \"AB\"}}", "Hello Worldab"),
            ("{{truncate .Name 2}}{{pad .Name 1 2}}|", "we web  |"),
            ("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}", "8080"),
            ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "172.17.0.2"),
            (
                "{{range $p, $c := .NetworkSettings.Ports}}{{$p}} -> {{(index $c 0).HostPort}}{{end}}",
                "80/tcp -> 8080",
            ),
            ("{{$x := .Name}}{{range .L}}{{$x}}{{$.N}}{{end}}", "web3web3"),
            ("{{$x := 1}}{{range .L}}{{$x = .}}{{end}}{{$x}}", "b"),
            ("{{range .L}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}", "a"),
            ("{{split \"a:b\" \":\"}}", "[a b]"),
            ("{{.L}} {{.M}}", "[a b] map[j:w k:v]"),
            ("{{slice .Name 0 2}}", "we"),
            ("{{`raw\\n`}}{{'a'}}{{1.5}}{{true}}{{nil | print}}", "raw\\n971.5true<nil>"),
            ("{{print 1 2 \"x\" \"y\" 3 4}}", "1 2xy3 4"),
            ("{{.State}}", "map[Health:<nil> Status:running]"),
        ] {
            assert_eq!(fill(template, data), want, "{template}");
        }
    }

    #[test]
    fn wrong_templates_say_where() {
        assert!(
            fill("{{.Name", "{}")
                .starts_with("BAD template parsing error: template: :1: unclosed action")
        );
        assert!(fill("{{if .x}}", "{}").contains("unexpected EOF"));
        assert!(fill("{{nope .x}}", "{}").contains("function \"nope\" not defined"));
        assert!(fill("{{end}}", "{}").contains("unexpected {{end}}"));
    }

    #[test]
    fn a_missing_key_can_be_an_error_but_a_label_never_is() {
        let value: Value =
            serde_json::from_str(r#"{"Id":"x","Config":{"Labels":{"a":"b"}},"State":{}}"#).unwrap();
        let render = |text: &str| Template::parse(text).unwrap().render(&value, Missing::Error);
        assert_eq!(
            render("{{.Foo}}").unwrap_err(),
            "template parsing error: template: :1: executing \"\" at <.Foo>: map has no entry for key \"Foo\""
        );
        assert_eq!(render("{{.Config.Labels.q}}").unwrap(), "<no value>");
        assert_eq!(render("{{index .Config.Labels \"q\"}}").unwrap(), "");
        assert_eq!(render("{{if .State.Health}}y{{else}}n{{end}}").unwrap(), "n");
    }
}
