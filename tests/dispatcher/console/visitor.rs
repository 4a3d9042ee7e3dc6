//! A visitor with a browser that has no script.

use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder};

use crate::dispatcher::harness::Api;

/// Someone with a browser: keeps one cookie, follows no redirect.
pub struct Visitor {
    pub client: Client,
    pub base: String,
    pub cookie: String,
}

pub struct Page {
    pub status: u16,
    pub location: String,
    pub text: String,
    /// The policy that came with it.
    pub policy: String,
    /// What the browser was told to keep.
    pub kept: Vec<String>,
}

impl Visitor {
    pub fn at(api: &Api) -> Self {
        let client = Client::builder().redirect(Policy::none());
        Self {
            client: client.build().unwrap(),
            base: api.base().to_owned(),
            cookie: String::new(),
        }
    }

    pub async fn signed_in(api: &Api, token: &str) -> Self {
        let mut visitor = Self::at(api);
        let page = visitor.post("/sign-in", &[("token", token)]).await;
        assert_eq!(
            (page.status, page.location.as_str()),
            (303, "/"),
            "{}",
            page.text
        );
        assert!(visitor.cookie.starts_with("carillon_session="));
        visitor
    }

    pub async fn get(&mut self, path: &str) -> Page {
        self.send(self.client.get(format!("{}{path}", self.base)))
            .await
    }

    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let request = self.client.post(format!("{}{path}", self.base));
        let request = request.header("sec-fetch-site", "same-origin");
        let kind = "application/x-www-form-urlencoded";
        self.send(request.header("content-type", kind).body(body))
            .await
    }

    /// Sends a form that is answered with a question, and says yes in the form of that.
    pub async fn surely(&mut self, path: &str, fields: &[(&str, &str)], question: &str) -> Page {
        let asked = self.post(path, fields).await;
        let mut fields = asked.has(question).hidden();
        for (name, value) in &fields {
            assert_ne!((name.as_str(), value.as_str()), ("sure", "yes"));
        }
        fields.push(("sure".to_owned(), "yes".to_owned()));
        let yes = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        self.post(path, &yes.collect::<Vec<_>>()).await
    }

    /// The same with the hidden fields of the page that has the form.
    pub async fn in_its_form(&mut self, page: &Page, path: &str, question: &str) -> Page {
        let fields = page.hidden();
        let fields = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        self.surely(path, &fields.collect::<Vec<_>>(), question)
            .await
    }

    pub async fn send(&mut self, request: RequestBuilder) -> Page {
        let answer = request.header("cookie", &self.cookie).send().await.unwrap();
        let header = |name: &str| {
            let value = answer.headers().get(name);
            value.map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let kept = answer.headers().get_all("set-cookie").iter();
        let kept: Vec<String> = kept.map(|set| set.to_str().unwrap().to_owned()).collect();
        for set in &kept {
            assert!(
                set.contains("; HttpOnly; ") && set.contains("SameSite="),
                "{set}"
            );
            self.cookie = set.split(';').next().unwrap().to_owned();
        }
        let (status, location) = (answer.status().as_u16(), header("location"));
        let text = answer.text().await.unwrap();
        Page {
            status,
            location,
            text,
            policy,
            kept,
        }
    }
}

impl Page {
    /// The hidden fields of the page's form.
    pub fn hidden(&self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        for field in self.text.split("<input type=\"hidden\" name=\"").skip(1) {
            let (name, rest) = field.split_once("\" value=\"").unwrap();
            let (value, _) = rest.split_once('"').unwrap();
            fields.push((name.to_owned(), value.to_owned()));
        }
        fields
    }

    #[track_caller]
    pub fn has(&self, wanted: &str) -> &Self {
        assert!(self.text.contains(wanted), "{wanted}: {}", self.text);
        self
    }
}
