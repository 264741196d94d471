//! `POST /api/{operation}`: seven AI operations, limited per user and operation (B1), four of them
//! cached (B4).

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use limiter::ai_cache::{Answer, CanonicalJson, ComputeError};
use limiter::{Key, LivePolicy};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::body;
use crate::model::{Completion, ModelError};
use crate::path::Path;
use crate::problem::Problem;
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

    fn parse(name: &str) -> Result<Self, Problem> {
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
    let user = app.users.authenticate(&headers)?;
    let operation = Operation::parse(&operation)?;
    let parameters: Map<String, Value> = body::object(&body::read(body).await?)?;
    let sent = CanonicalJson::of(&parameters).map_err(|_| Problem::bad_request(UNUSABLE))?;

    let key = operation.key(user);
    let policy = operation.policy(&app).of(&key);
    let decision = app.limiter.check(&policy, &key).await;
    let decided = app.responder.now();
    if let Some(refusal) = app.responder.refusal(&decision, operation.name()) {
        return Ok(refusal);
    }
    let mut response = answer(&app, operation, user, &parameters, sent)
        .await
        .unwrap_or_else(IntoResponse::into_response);
    // The model's seconds are not the limit's.
    let limit = limiter::http::Decided::from(&decision).at(decided);
    app.responder.write_headers(limit, &mut response);
    Ok(response)
}

async fn answer(
    app: &Arc<App>,
    operation: Operation,
    user: &User,
    parameters: &Map<String, Value>,
    sent: CanonicalJson,
) -> Result<Response, Problem> {
    let ask = {
        let app = app.clone();
        move |sent: CanonicalJson| async move { app.model.complete(operation.name(), &sent).await }
    };
    let caches = &app.caches;
    let cached = match operation {
        Operation::CompanyResearch => {
            caches
                .company_research
                .get_or_compute(parameters, ask)
                .await
        }
        Operation::JobExtraction => caches.job_extraction.get_or_compute(parameters, ask).await,
        Operation::ResumeAnalysis => {
            let mine = caches.resume_analysis.user(&user.id);
            mine.get_or_compute(parameters, ask).await
        }
        Operation::InterviewPrep => {
            let mine = caches.interview_prep.user(&user.id);
            mine.get_or_compute(parameters, ask).await
        }
        Operation::CoverLetter | Operation::EmailDraft | Operation::CareerAdvice => {
            let completion = ask(sent).await.map_err(model_failed)?;
            return Ok(render(operation, &completion).into_response());
        }
    };
    let Answer { value, origin, .. } = cached.map_err(cache_failed)?;
    let x_cache = HeaderValue::from_static(origin.x_cache());
    Ok(([("x-cache", x_cache)], render(operation, &value)).into_response())
}

fn render(operation: Operation, completion: &Completion) -> Json<Value> {
    Json(json!({
        "operation": operation.name(),
        "answer": completion.text,
        "model": completion.model,
    }))
}

fn cache_failed(error: ComputeError) -> Problem {
    match error.downcast_ref::<ModelError>() {
        Some(error) => model_failed(error.clone()),
        None if matches!(error, ComputeError::Input(_)) => Problem::bad_request(UNUSABLE),
        None => {
            tracing::error!(%error, "no answer");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no answer; try again")
        }
    }
}

fn model_failed(error: ModelError) -> Problem {
    tracing::warn!(%error, "the model gave no answer");
    Problem::new(
        StatusCode::BAD_GATEWAY,
        "the model gave no answer; try again",
    )
}
