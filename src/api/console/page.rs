//! What all pages have: the frame around them, how they are rendered, and forms.

use askama::Template;
use axum::extract::{FromRequest, Request};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use http::StatusCode;

use super::super::extract::Body;
use super::super::problem::Problem;
use super::Pages;
use super::calls::Refusal;
use super::view::When;
use super::visitor::Visitor;

/// Most fields of a form.
const FIELDS_MAX: usize = 64;

/// The frame around a page.
pub struct Frame {
    /// The page's title.
    pub title: String,
    /// The entry of the menu that leads there.
    pub section: &'static str,
    /// Whether the admin looks.
    pub is_admin: bool,
    /// Whose things alone are seen; empty for the admin.
    pub tenant: String,
    /// Whether there is anything to sign out of.
    pub signed_in: bool,
}

/// Something that was done or refused, said at the top of a page.
pub struct Notice {
    /// Whether it is bad news.
    pub is_bad: bool,
    /// A sentence.
    pub text: String,
}

/// The fields of a form.
pub struct Form(Vec<(String, String)>);

/// What is asked before something is done that cannot be undone.
pub struct Question<'a> {
    /// The entry of the menu.
    pub section: &'static str,
    /// The question.
    pub title: String,
    /// What would happen.
    pub text: &'static str,
    /// The button that says yes.
    pub yes: &'static str,
    /// Where the form goes that is sent again then.
    pub action: &'a str,
    /// Where to go if not.
    pub back: &'a str,
}

#[derive(Template)]
#[template(path = "question.html")]
struct QuestionPage<'a> {
    frame: Frame,
    question: Question<'a>,
    fields: &'a [(String, String)],
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    frame: Frame,
    detail: String,
}

impl Frame {
    /// The frame of a page in `section` of the menu.
    pub fn of(visitor: &Visitor, section: &'static str, title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            section,
            is_admin: visitor.is_admin(),
            tenant: visitor.tenant().to_owned(),
            signed_in: visitor.signed_in,
        }
    }

    /// The frame of a page for someone who is not signed in.
    pub fn of_nobody(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            section: "",
            is_admin: false,
            tenant: String::new(),
            signed_in: false,
        }
    }

    /// The menu: each section with its page and its name.
    pub fn menu(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let all = [
            ("overview", "/", "Overview"),
            ("subscriptions", "/subscriptions", "Subscriptions"),
            ("attempts", "/attempts", "Attempts"),
            ("dead-letters", "/dead-letters", "Dead letters"),
            ("quarantine", "/quarantine", "Quarantine"),
            ("publish", "/publish", "Publish"),
        ];
        let is_for = |section: &str| self.is_admin || section != "quarantine";
        all.into_iter()
            .filter(|(section, ..)| is_for(section))
            .collect()
    }

    /// A time of the API, as pages show it.
    pub fn when<'a>(&self, at: &'a str) -> When<'a> {
        When(at)
    }
}

impl Notice {
    /// Something was done.
    pub fn good(text: impl Into<String>) -> Option<Self> {
        let (is_bad, text) = (false, text.into());
        Some(Self { is_bad, text })
    }

    /// It was refused.
    pub fn bad(refusal: &Refusal) -> Option<Self> {
        let (is_bad, text) = (true, refusal.detail().to_owned());
        Some(Self { is_bad, text })
    }
}

impl Form {
    /// A field without the space around it; empty when it is absent.
    pub fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.trim())
    }

    /// Whether the question that [`ask`] put was answered with yes.
    pub fn is_sure(&self) -> bool {
        self.text("sure") == "yes"
    }
}

impl FromRequest<Pages> for Form {
    type Rejection = Response;

    async fn from_request(request: Request, pages: &Pages) -> Result<Self, Response> {
        let body = Body::from_request(request, pages).await;
        let Body(bytes) = body.map_err(|problem| refused(&problem))?;
        let pairs = url::form_urlencoded::parse(&bytes).into_owned();
        Ok(Self(pairs.take(FIELDS_MAX).collect()))
    }
}

/// A page.
pub fn render(page: &impl Template) -> Response {
    render_as(StatusCode::OK, page)
}

/// A page with another status.
pub fn render_as(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page of the console cannot be rendered");
            Problem::internal().into_response()
        }
    }
}

/// Asks whether what `form` wants is really meant; yes sends the same form again.
pub fn ask(visitor: &Visitor, question: Question<'_>, form: &Form) -> Response {
    render(&QuestionPage {
        frame: Frame::of(visitor, question.section, question.title.clone()),
        question,
        fields: &form.0,
    })
}

/// To another page, after something was done.
pub fn go(to: &str) -> Response {
    Redirect::to(to).into_response()
}

/// The page in place of one that the API has nothing for.
pub fn failed(visitor: &Visitor, section: &'static str, refusal: &Refusal) -> Response {
    let title = match refusal.status {
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::FORBIDDEN => "Not yours to see",
        StatusCode::SERVICE_UNAVAILABLE => "Not available now",
        _ => "That did not work",
    };
    let page = ProblemPage {
        frame: Frame::of(visitor, section, title),
        detail: refusal.detail().to_owned(),
    };
    render_as(refusal.status, &page)
}

/// The page for whom nothing is answered.
pub fn refused(problem: &Problem) -> Response {
    let page = ProblemPage {
        frame: Frame::of_nobody("Refused"),
        detail: problem.detail().to_owned(),
    };
    render_as(problem.status(), &page)
}
