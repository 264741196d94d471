//! What every request shares: users, limits, caches, the model.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use limiter::ai_cache::scope::PerUser;
use limiter::ai_cache::{AiCache, CacheConfig};
use limiter::config::PolicySet;
use limiter::core::cache::CacheStore;
use limiter::http::Responder;
use limiter::metrics::Metrics;
use limiter::{AgentLimits, Limiter, OutageLog, Policy};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;

use crate::audit::Audit;
use crate::model::{Completion, Model};
use crate::operations::Operation;
use crate::problem::Problem;
use crate::settings::{DEMO_USERS, Settings};
use crate::users::Users;
use crate::{admin, agent, health, operations, webhook};

pub(crate) struct App {
    pub(crate) users: Users,
    pub(crate) limiter: Limiter,
    pub(crate) cache: Arc<dyn CacheStore>,
    pub(crate) outages: OutageLog,
    pub(crate) policies: Policies,
    pub(crate) agents: AgentLimits,
    pub(crate) responder: Responder,
    pub(crate) caches: Caches,
    pub(crate) model: Model,
    pub(crate) audit: Arc<Audit>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) webhook_secret: SecretString,
}

/// The policies that the service names.
pub(crate) struct Policies {
    pub(crate) all: PolicySet,
    pub(crate) admin: Policy,
    pub(crate) webhook: Policy,
    pub(crate) agent_user: Policy,
}

/// The four caches of B4. Company research and job extraction are everybody's; a resume's and an
/// interview's answers are their user's.
pub(crate) struct Caches {
    pub(crate) company_research: AiCache<Completion>,
    pub(crate) job_extraction: AiCache<Completion>,
    pub(crate) resume_analysis: AiCache<Completion, PerUser>,
    pub(crate) interview_prep: AiCache<Completion, PerUser>,
}

impl App {
    /// Reads the files, chooses the backend and the model.
    pub(crate) async fn new(settings: Settings) -> Result<Arc<Self>, String> {
        let metrics = health::install_metrics()?;
        let policies = Policies::new(&settings.limits).map_err(|error| error.to_string())?;
        let audit = Arc::new(Audit::default());
        let backends = limiter::Builder::new()
            .observe(Metrics::new())
            .observe(audit.clone())
            .from_env()
            .await
            .map_err(|error| error.to_string())?;
        let model = Model::new(settings.model.as_ref())?;
        let store = &backends.cache;
        let caches = Caches {
            company_research: AiCache::new(
                store.clone(),
                CacheConfig::company_research().with_model(model.name()),
            ),
            job_extraction: AiCache::new(
                store.clone(),
                CacheConfig::job_extraction().with_model(model.name()),
            ),
            resume_analysis: AiCache::new(
                store.clone(),
                CacheConfig::resume_analysis().with_model(model.name()),
            ),
            interview_prep: AiCache::new(
                store.clone(),
                CacheConfig::interview_prep().with_model(model.name()),
            ),
        };
        let users = Users::from_json(&settings.users)?;
        if users.share_a_key_with(&Users::from_json(DEMO_USERS)?) {
            tracing::warn!(
                "demo users are active: everybody knows their keys, an admin's too; set USERS_FILE to a file with keys of your own"
            );
        }
        let policy = |name| policies.all.get(name).cloned();
        let (turn, session) = policy("agent-turn")
            .and_then(|turn| Ok((turn, policy("agent-session")?)))
            .map_err(|error| error.to_string())?;
        Ok(Arc::new(Self {
            users,
            agents: AgentLimits::with_policies(backends.limiter.clone(), turn, session),
            limiter: backends.limiter,
            cache: backends.cache,
            outages: backends.outages,
            policies,
            responder: Responder::default(),
            caches,
            model,
            audit,
            metrics,
            webhook_secret: settings.webhook_secret.unwrap_or_else(|| {
                tracing::warn!(
                    "WEBHOOK_SECRET is not set; webhooks are signed with the demo's secret"
                );
                "demo-webhook-secret".into()
            }),
        }))
    }

    /// The routes.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/", get(|| async { Html(include_str!("index.html")) }))
            .route("/health", get(health::health))
            .route("/metrics", get(health::metrics))
            .route("/api/{operation}", post(operations::run))
            .route("/api/admin/{endpoint}", get(admin::show))
            .route("/webhooks/{provider}", post(webhook::receive))
            .route(
                "/agent/{session}/turns/{turn}/tools/{tool}",
                post(agent::use_tool),
            )
            .fallback(|| async { Problem::not_found("there is nothing here; GET / says what is") })
            .method_not_allowed_fallback(|| async {
                Problem::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "this path takes another method; GET / says which",
                )
            })
            .with_state(self)
    }
}

impl Policies {
    fn new(text: &str) -> Result<Self, limiter::Error> {
        let all = PolicySet::from_json(text)?;
        for operation in Operation::ALL {
            all.get(operation.name())?;
        }
        Ok(Self {
            admin: all.get("admin")?.clone(),
            webhook: all.get("webhook")?.clone(),
            agent_user: all.get("agent-user")?.clone(),
            all,
        })
    }
}
