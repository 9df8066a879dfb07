//! The API's own document, and whether an answer is what it says.

use serde_json::{Map, Value};

use crate::gateway::{Gateway, address};
use crate::http::{Answer, Http};

/// How a number of 64 bits is declared.
const ID_PATTERN: &str = "^(0|[1-9][0-9]{0,19})$";

/// The document of a gateway that runs.
pub(crate) struct Document(Value);

impl Document {
    /// As it came.
    pub(crate) fn new(json: Value) -> Document {
        assert_eq!(json["openapi"], "3.1.0", "{json}");
        Document(json)
    }

    /// Every operation, with its method and path.
    fn operations(&self) -> impl Iterator<Item = (&String, &String, &Value)> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(method, it)| (method, path, it)))
    }

    /// An answer has a status that is declared for its call, in a type that is declared for it, with what its schema has and
    /// nothing else. What no operation is declared for is `UnknownPath` or `MethodNotAllowed`.
    pub(crate) fn check(&self, method: &str, path: &str, answer: &Answer) {
        let path = path.strip_prefix("/api/v1").unwrap().split('?').next().unwrap();
        let is_it = |template: &str| {
            let (parts, given) = (template.split('/'), path.split('/'));
            parts.clone().count() == given.clone().count()
                && parts.zip(given).all(|(part, given)| part == given || part.starts_with('{'))
        };
        let operation = self.operations().find(|(it, template, _)| it.eq_ignore_ascii_case(method) && is_it(template));
        let Some((_, template, operation)) = operation else {
            assert!(["UnknownPath", "MethodNotAllowed"].contains(&answer.code()), "{method} {path}: {answer:?}");
            return;
        };
        let declared = &operation["responses"][answer.status.to_string()]["content"];
        let kind = answer.header("content-type").unwrap_or_default();
        let schema = &declared[kind]["schema"];
        assert!(schema.is_object(), "{method} {template} is answered with {} {kind}: {answer:?}", answer.status);
        if let Err(why) = self.fits(schema, &answer.json) {
            panic!("{method} {template}: {why}: {answer:?}");
        }
    }

    /// Whether a value is what a schema says; as much of the language as the document uses, and stricter: what is not
    /// declared may not be there.
    fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        if let Some(name) = schema["$ref"].as_str() {
            let pointer = name.strip_prefix('#').unwrap();
            return self.fits(self.0.pointer(pointer).ok_or_else(|| format!("{name} is not there"))?, value);
        }
        for one_of in ["oneOf", "anyOf"] {
            if let Some(schemas) = schema[one_of].as_array() {
                let errors: Vec<String> = schemas.iter().filter_map(|it| self.fits(it, value).err()).collect();
                let fits = schemas.len() - errors.len();
                return if fits == 1 { Ok(()) } else { Err(format!("{fits} of {one_of} fit {value}: {errors:?}")) };
            }
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) if types.contains(&"number") => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if !types.contains(&is) {
            return Err(format!("{value} is no {types:?}"));
        }
        match value {
            Value::String(text) => Self::string_fits(schema, text),
            Value::Array(items) => items.iter().try_for_each(|item| self.fits(&schema["items"], item)),
            Value::Object(fields) => self.object_fits(schema, fields),
            _ => Ok(()),
        }
    }

    fn string_fits(schema: &Value, text: &str) -> Result<(), String> {
        if schema["pattern"] == ID_PATTERN && text.parse::<u64>().map(|id| id.to_string()).as_deref() != Ok(text) {
            return Err(format!("{text:?} is no number of 64 bits"));
        }
        match schema["enum"].as_array() {
            Some(values) if !values.contains(&text.into()) => Err(format!("{text:?} is none of {values:?}")),
            _ => Ok(()),
        }
    }

    fn object_fits(&self, schema: &Value, fields: &Map<String, Value>) -> Result<(), String> {
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if let Some(missing) = required.into_iter().find(|name| !fields.contains_key(*name)) {
            return Err(format!("{missing} is missing"));
        }
        for (name, value) in fields {
            let of_all = schema["additionalProperties"].is_object().then_some(&schema["additionalProperties"]);
            let field = schema["properties"].get(name).or(of_all);
            self.fits(field.ok_or_else(|| format!("{name} is not declared"))?, value)
                .map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(())
    }
}

#[test]
fn every_call_is_in_the_document_once_and_says_what_it_takes_and_how_it_can_fail() {
    let dir = tempfile::tempdir().unwrap();
    let _gateway = Gateway::start(dir.path(), &[]);
    let mut http = Http::connect(address(dir.path(), "admin").unwrap(), None).unwrap();
    let document = Document::new(http.get("/api/v1/openapi.json").unwrap().json);
    let mut names: Vec<&str> = Vec::new();
    let page = include_str!("../api/README.md");
    for (method, path, operation) in document.operations() {
        let name = operation["operationId"].as_str().unwrap();
        assert!(!names.contains(&name), "{name} is there twice");
        names.push(name);
        assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{operation}");
        let line = format!("`{} {path}", method.to_uppercase());
        let is_row = |it: &str| ["`", "?"].iter().any(|end| it.starts_with(&format!("| {line}{end}")));
        assert!(page.lines().any(is_row), "the page has no row for {line}");
        let in_path =
            |it: &&Value| it["in"] == "path" && path.contains(&format!("{{{}}}", it["name"].as_str().unwrap()));
        let parameters = operation["parameters"].as_array().map_or(0, |all| all.iter().filter(in_path).count());
        assert_eq!(parameters, path.matches('{').count(), "{path}: {operation}");
        for status in ["400", "401", "403", "503", "504"] {
            let body = &operation["responses"][status]["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(body, "#/components/schemas/Problem", "{name}: {status}");
        }
    }
    assert!(names.contains(&"send_messages") && names.contains(&"read_inbox"), "{names:?}");
    // What it refers to is there.
    let text = document.0.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.0.pointer(reference).is_some(), "{reference} is not there");
    }
}
