//! One operation of the document: what it takes, and every answer that it gives.

use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    parameters::{self, Parameter},
    schemas::Schemas,
};
use crate::wire;

/// What a request may be refused with, and when.
const REFUSALS: [(&str, &str, &str); 11] = [
    ("400", "BadRequest", "The request cannot be understood: a parameter is unknown or wrong."),
    ("403", "Forbidden", "Who asks may not: see `read_groups` and `admin_groups`."),
    ("404", "NotFound", "There is no such thing."),
    ("405", "MethodNotAllowed", "The path takes another method: see `Allow`."),
    ("406", "NotAcceptable", "`Accept` names no format of this answer."),
    ("409", "Conflict", "It would hurt who asks, or means several things."),
    ("413", "ContentTooLarge", "The body is too long."),
    ("422", "UnprocessableContent", "It is understood, and cannot be followed."),
    ("429", "TooManyRequests", "Who asks asks more than one user may at a time."),
    ("500", "InternalServerError", "The database cannot be read, or not be written."),
    (
        "503",
        "ServiceUnavailable",
        "The daemon stops, the query takes too long, or too many answers wait to be read.",
    ),
];

/// A method of a path.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    id: &'static str,
    summary: &'static str,
    description: String,
    parameters: Vec<Parameter>,
    body: Option<Body>,
    /// Media type, and the shape of what has it.
    answers: Vec<(&'static str, Shape)>,
    links: Vec<Link>,
    refusals: Vec<&'static str>,
}

/// What a request has in its body.
#[derive(Clone, Copy, Debug)]
struct Body {
    description: &'static str,
    kind: &'static str,
    example: &'static str,
}

/// What stands in an answer.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Json(fn(&mut Schemas) -> Value),
    Text,
}

/// Where an answer leads: to an operation, with a parameter from the answer.
#[derive(Clone, Copy, Debug)]
struct Link {
    name: &'static str,
    to: &'static str,
    parameter: &'static str,
    pointer: &'static str,
}

impl Operation {
    fn new(method: &'static str, path: &'static str, id: &'static str) -> Self {
        Self {
            method,
            path,
            id,
            summary: "",
            description: String::new(),
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            links: Vec::new(),
            refusals: vec!["400", "403", "405", "429", "503"],
        }
    }

    pub(super) fn get(path: &'static str, id: &'static str) -> Self {
        Self::new("get", path, id)
    }

    pub(super) fn put(path: &'static str, id: &'static str) -> Self {
        Self::new("put", path, id)
    }

    pub(super) fn post(path: &'static str, id: &'static str) -> Self {
        Self::new("post", path, id)
    }

    /// A line, and what is to be said besides.
    pub(super) fn says(self, summary: &'static str, description: &str) -> Self {
        Self { summary, description: description.to_owned(), ..self }
    }

    /// Takes one parameter.
    pub(super) fn takes(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// Takes a range of time.
    pub(super) fn takes_range(mut self) -> Self {
        self.parameters.extend(parameters::range());
        self.refuses(&["422"])
    }

    /// Takes every filter but the state of the flow.
    pub(super) fn takes_filters(mut self) -> Self {
        self.parameters.extend(parameters::filters());
        self.refuses(&["422"])
    }

    /// Takes the filters that make sense for what is open now.
    pub(super) fn takes_filters_of_now(mut self) -> Self {
        let filters = parameters::filters().into_iter().skip(parameters::range().len());
        self.parameters.extend(filters);
        self
    }

    /// Takes a policy in its body.
    pub(super) fn takes_policy(self) -> Self {
        let description = "A policy as in docs/policy.md, in UTF-8; of any media type.";
        let (kind, example) = ("application/toml", "default = \"allow\"\n");
        Self { body: Some(Body { description, kind, example }), ..self }.refuses(&["413"])
    }

    /// Takes a statement of SQL in its body.
    pub(super) fn takes_statement(self) -> Self {
        let description = "One SELECT as in docs/sql.md, in UTF-8; of any media type.";
        let (kind, example) = ("text/plain", "SELECT count(*) AS records FROM records");
        Self { body: Some(Body { description, kind, example }), ..self }.refuses(&["413", "422"])
    }

    /// Answers with a `T` as JSON.
    pub(super) fn answers<T: ToSchema>(self) -> Self {
        self.answers_as::<T>("application/json")
    }

    /// Answers with a `T` a line, or another kind of JSON.
    pub(super) fn answers_as<T: ToSchema>(mut self, kind: &'static str) -> Self {
        self.answers.push((kind, Shape::Json(Schemas::refer::<T>)));
        self
    }

    /// Answers with text.
    pub(super) fn answers_text(mut self, kind: &'static str) -> Self {
        self.answers.push((kind, Shape::Text));
        self
    }

    /// Answers with objects of any shape.
    pub(super) fn answers_objects(mut self, kind: &'static str) -> Self {
        self.answers.push((kind, Shape::Json(|_| json!({ "type": "object" }))));
        self
    }

    /// What stands at `pointer` of an answer is a `parameter` of the operation `to`.
    pub(super) fn leads(
        mut self,
        name: &'static str,
        to: &'static str,
        (parameter, pointer): (&'static str, &'static str),
    ) -> Self {
        self.links.push(Link { name, to, parameter, pointer });
        self
    }

    /// Reads the store, which may fail.
    pub(super) fn reads_store(self) -> Self {
        self.refuses(&["500"])
    }

    /// Refuses with these statuses too.
    pub(super) fn refuses(mut self, statuses: &[&'static str]) -> Self {
        self.refusals.extend(statuses);
        self
    }

    /// As the document has it.
    pub(super) fn json(&self, schemas: &mut Schemas) -> Value {
        let mut content = Map::new();
        for (kind, shape) in &self.answers {
            let schema = match shape {
                Shape::Json(schema) => schema(schemas),
                Shape::Text => json!({ "type": "string" }),
            };
            content.insert((*kind).to_owned(), json!({ "schema": schema }));
        }
        let mut done = json!({ "description": "Done.", "content": content });
        let link = |Link { name, to, parameter, pointer }: &Link| {
            let from = format!("$response.body#{pointer}");
            let link = json!({ "operationId": to, "parameters": { *parameter: from } });
            ((*name).to_owned(), link)
        };
        if !self.links.is_empty() {
            done["links"] = self.links.iter().map(link).collect::<Map<_, _>>().into();
        }
        let mut responses = Map::from_iter([("200".to_owned(), done)]);
        for (status, name, _) in REFUSALS.iter().filter(|(status, ..)| self.refuses_with(status)) {
            let response = json!({ "$ref": format!("#/components/responses/{name}") });
            responses.insert((*status).to_owned(), response);
        }
        let mut json = json!({
            "operationId": self.id,
            "summary": self.summary,
            "parameters": self.parameters.iter().map(Parameter::json).collect::<Vec<_>>(),
            "responses": responses,
        });
        if !self.description.is_empty() {
            json["description"] = self.description.clone().into();
        }
        if let Some(Body { description, kind, example }) = self.body {
            let text = json!({ "type": "string", "minLength": 1, "examples": [example] });
            json["requestBody"] = json!({
                "description": description,
                "required": true,
                "content": { kind: { "schema": text } },
            });
        }
        json
    }

    fn refuses_with(&self, status: &str) -> bool {
        self.refusals.contains(&status)
    }
}

/// What operations refuse with, by name.
pub(super) fn refusals(schemas: &mut Schemas) -> Value {
    let schema = schemas.refer::<wire::Problem>();
    let refusal = |(status, name, description): (&str, &str, &str)| {
        let mut response = json!({
            "description": description,
            "content": { "application/problem+json": { "schema": schema } },
        });
        if status == "405" {
            let description = "The methods that the path takes.";
            let allow = json!({
                "description": description, "required": true, "schema": { "type": "string" },
            });
            response["headers"] = json!({ "Allow": allow });
        }
        (name.to_owned(), response)
    };
    REFUSALS.into_iter().map(refusal).collect::<Map<_, _>>().into()
}
