//! `POST /api/{operation}`: seven AI operations, limited per user and operation (B1), four of them
//! cached (B4). A cached answer is counted; only a call of the model is charged to the limits of calls and tokens, and one that
//! fails is charged to nobody.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use limiter::ai_cache::{CanonicalJson, ComputeError};
use limiter::{CallError, Key, LivePolicy, PaidAnswer, PaidCall};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::http::body;
use crate::http::path::Path;
use crate::http::problem::Problem;
use crate::model::{Completion, Model, ModelError};
use crate::users::User;

/// What users can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    CompanyResearch,
    ResumeAnalysis,
    JobExtraction,
    InterviewPrep,
    CoverLetter,
    EmailDraft,
    CareerAdvice,
}

impl Operation {
    pub(crate) const ALL: [Self; 7] = [
        Self::CompanyResearch,
        Self::ResumeAnalysis,
        Self::JobExtraction,
        Self::InterviewPrep,
        Self::CoverLetter,
        Self::EmailDraft,
        Self::CareerAdvice,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CompanyResearch => "companyResearch",
            Self::ResumeAnalysis => "resumeAnalysis",
            Self::JobExtraction => "jobExtraction",
            Self::InterviewPrep => "interviewPrep",
            Self::CoverLetter => "coverLetter",
            Self::EmailDraft => "emailDraft",
            Self::CareerAdvice => "careerAdvice",
        }
    }

    /// Whether answers are kept (B4).
    pub(crate) fn is_cached(self) -> bool {
        !matches!(
            self,
            Self::CoverLetter | Self::EmailDraft | Self::CareerAdvice
        )
    }

    pub(crate) fn parse(name: &str) -> Result<Self, Problem> {
        let found = Self::ALL
            .into_iter()
            .find(|operation| operation.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Problem::not_found(format!("there is no such operation; there are {names}"))
        })
    }

    /// The counter of a user's calls: `ratelimit:user:{userId}:{operation}`.
    pub(crate) fn key(self, user: &User) -> Key {
        Key::new(["ratelimit", "user", &user.id, self.name()])
    }

    pub(crate) fn policy(self, app: &App) -> &LivePolicy {
        // In the order of the declaration, as `ALL` is.
        &app.policies.operations[self as usize]
    }
}

const UNUSABLE: &str = "a parameter cannot be told apart from others: a number is too large or too long (give it as a string), or the nesting too deep";

pub(crate) async fn run(
    State(app): State<Arc<App>>,
    Path(operation): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    // Whatever is wrong with a request is said before it is charged.
    let user = app.authenticate(&headers)?;
    let operation = Operation::parse(&operation)?;
    let parameters: Map<String, Value> =
        body::object(&body::read(&app.room, &user.id, body, body::TIMEOUT).await?)?;
    let sent = CanonicalJson::of(&parameters).map_err(|_| Problem::bad_request(UNUSABLE))?;

    let call = app.paid_call(user, operation, Model::estimate(&sent));
    // The model's seconds are not the limit's.
    let at = app.responder.now();
    let (answered, decision) = match ask(&app, call, operation, user, &parameters).await {
        Ok(answer) => (render(operation, &answer), answer.decision),
        Err(CallError::Failed { error, decision }) => (failed(&error).into_response(), decision),
        Err(CallError::Limited(decision)) => {
            return Ok(app.refused(&decision, operation.name()));
        }
        Err(error) => {
            tracing::error!(%error, "no answer");
            return Err(nothing());
        }
    };
    let mut response = answered;
    let decided = limiter::http::Decided::from(&decision).at(at);
    app.responder.write_headers(decided, &mut response);
    Ok(response)
}

async fn ask(
    app: &Arc<App>,
    call: PaidCall,
    operation: Operation,
    user: &User,
    parameters: &Map<String, Value>,
) -> Result<PaidAnswer<Completion>, CallError> {
    let ask = {
        let app = app.clone();
        move |sent: CanonicalJson| async move { app.model.complete(operation.name(), &sent).await }
    };
    let caches = &app.caches;
    match operation {
        Operation::CompanyResearch => call.cached(&caches.company_research, parameters, ask).await,
        Operation::JobExtraction => call.cached(&caches.job_extraction, parameters, ask).await,
        Operation::ResumeAnalysis => {
            let mine = caches.resume_analysis.user(&user.id);
            call.cached(&mine, parameters, ask).await
        }
        Operation::InterviewPrep => {
            let mine = caches.interview_prep.user(&user.id);
            call.cached(&mine, parameters, ask).await
        }
        Operation::CoverLetter | Operation::EmailDraft | Operation::CareerAdvice => {
            call.uncached(parameters, ask).await
        }
    }
}

fn render(operation: Operation, answer: &PaidAnswer<Completion>) -> Response {
    let body = Json(json!({
        "operation": operation.name(),
        "answer": answer.value.text,
        "model": answer.value.model,
    }));
    if !operation.is_cached() {
        return body.into_response();
    }
    let x_cache = HeaderValue::from_static(answer.origin.x_cache());
    ([("x-cache", x_cache)], body).into_response()
}

fn failed(error: &ComputeError) -> Problem {
    if let Some(error) = error.downcast_ref::<ModelError>() {
        tracing::warn!(%error, "the model gave no answer");
        return match error.busy {
            // The provider's limit is not the caller's, so this is no 429.
            Some(seconds) => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the model has no room for now; nothing was charged",
            )
            .retry_after(seconds),
            None if error.is_refused => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "the model refused these parameters",
            ),
            None => Problem::new(
                StatusCode::BAD_GATEWAY,
                "the model gave no answer; try again",
            ),
        };
    }
    if matches!(error, ComputeError::Input(_)) {
        return Problem::bad_request(UNUSABLE);
    }
    tracing::error!(%error, "no answer");
    nothing()
}

fn nothing() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no answer; try again")
}
