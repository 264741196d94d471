//! What every request shares: users, limits, caches, the model.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use limiter::ai_cache::scope::PerUser;
use limiter::ai_cache::{AiCache, CacheConfig, Stats};
use limiter::audit::Audit;
use limiter::config::{ConfigFile, FileWatch, Format, LivePolicies, PolicySet};
use limiter::http::Responder;
use limiter::limiter_core::cache::CacheStore;
use limiter::memory::MemoryConfig;
use limiter::metrics::{HostedPlan, Metrics};
use limiter::switch::SwitchControl;
use limiter::{AgentLimits, Limiter, LivePolicy, Offenders, OutageLog, Switch, Thresholds};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;

use crate::audit::{self, Recent};
use crate::model::{Completion, Model};
use crate::problem::Problem;
use crate::routes::operations::Operation;
use crate::routes::{admin, agent, health, operations, switch, webhook};
use crate::settings::{DEMO_USERS, Settings};
use crate::users::Users;

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
    pub(crate) audit: Audit,
    pub(crate) recent: Recent,
    pub(crate) switch: SwitchControl,
    pub(crate) offenders: Offenders,
    /// Files that are looked at while this is there.
    _watches: Vec<FileWatch>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) webhook_secret: SecretString,
    /// What the plan of a hosted Redis has.
    pub(crate) plan: HostedPlan,
}

/// The policies that the service names; they change with their file.
pub(crate) struct Policies {
    pub(crate) all: LivePolicies,
    /// In the order of [`Operation::ALL`].
    pub(crate) operations: Vec<LivePolicy>,
    pub(crate) admin: LivePolicy,
    pub(crate) webhook: LivePolicy,
    pub(crate) agent_user: LivePolicy,
    is_from_a_file: bool,
}

/// The policies that are no operation's.
const OTHERS: [&str; 5] = [
    "admin",
    "webhook",
    "agent-turn",
    "agent-session",
    "agent-user",
];

/// How often files are looked at. What is in one has to be the same twice.
const LOOK: Duration = Duration::from_secs(1);

/// The four caches of B4. Company research and job extraction are everybody's; a resume's and an
/// interview's answers are their user's.
pub(crate) struct Caches {
    pub(crate) company_research: AiCache<Completion>,
    pub(crate) job_extraction: AiCache<Completion>,
    pub(crate) resume_analysis: AiCache<Completion, PerUser>,
    pub(crate) interview_prep: AiCache<Completion, PerUser>,
}

impl Caches {
    /// What each of them did on this instance.
    pub(crate) fn stats(&self) -> [(&str, Stats); 4] {
        let (company, job) = (&self.company_research, &self.job_extraction);
        let (resume, interview) = (&self.resume_analysis, &self.interview_prep);
        [
            (company.operation(), company.stats()),
            (job.operation(), job.stats()),
            (resume.operation(), resume.stats()),
            (interview.operation(), interview.stats()),
        ]
    }
}

impl App {
    /// Reads the files, chooses the backend and the model.
    pub(crate) async fn new(settings: Settings) -> Result<Arc<Self>, String> {
        let metrics = health::install_metrics()?;
        let said = |error: limiter::Error| error.message().to_owned();
        let policies = Policies::new(settings.limits).map_err(said)?;
        let (audit, recent) = audit::start(&settings.audit, &settings.instance)?;
        let thresholds = Thresholds::new(&[80, 95], |crossing| {
            limiter::metrics::count_crossing(crossing);
            tracing::info!(
                policy = crossing.policy.name(),
                percent = crossing.percent,
                used = crossing.used,
                limit = crossing.limit,
                "somebody's limit is nearly used up"
            );
        });
        let switch = Switch::new(&settings.instance);
        let offenders = Offenders::new();
        let memory = MemoryConfig::default();
        let memory = match settings.memory_keys {
            Some(keys) => memory.with_keys(keys).map_err(said)?,
            None => memory,
        };
        limiter::metrics::announce(&policies.all.current());
        let backends = limiter::Builder::new()
            .memory_config(memory)
            .trace()
            .observe(Metrics::new())
            .observe(audit.clone())
            .observe(thresholds.map_err(said)?)
            .observe(offenders.clone())
            .switch(switch.clone())
            .from_env()
            .await
            .map_err(|error| error.to_string())?;
        offenders.keep_in(backends.ranking.clone());
        let mut watches = Vec::new();
        if policies.is_from_a_file {
            watches.push(policies.all.watch(LOOK).map_err(said)?);
        }
        let switch = SwitchControl::new(switch, backends.cache.clone());
        if let Some(file) = settings.switch {
            watches.push(switch.watch(file, LOOK).map_err(said)?);
        }
        if settings.follow {
            switch.follow();
        }
        let model = Model::new(settings.model.as_ref())?;
        let store = &backends.cache;
        let caches = Caches {
            company_research: AiCache::new(
                store.clone(),
                CacheConfig::company_research("1").with_model(model.name()),
            ),
            job_extraction: AiCache::new(
                store.clone(),
                CacheConfig::job_extraction("1").with_model(model.name()),
            ),
            resume_analysis: AiCache::new(
                store.clone(),
                CacheConfig::resume_analysis("1").with_model(model.name()),
            ),
            interview_prep: AiCache::new(
                store.clone(),
                CacheConfig::interview_prep("1").with_model(model.name()),
            ),
        };
        let users = Users::from_json(&settings.users)?;
        if users.share_a_key_with(&Users::from_json(DEMO_USERS)?) {
            tracing::warn!(
                "demo users are active: everybody knows their keys, an admin's too; set USERS_FILE to a file with keys of your own"
            );
        }
        let policy = |name| policies.all.get(name).map_err(said);
        let (turn, session) = (policy("agent-turn")?, policy("agent-session")?);
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
            recent,
            switch,
            offenders,
            _watches: watches,
            metrics,
            plan: settings.plan,
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
            .route(
                "/api/admin/switch",
                get(switch::show).put(switch::throw).delete(switch::release),
            )
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
    fn new(file: Option<ConfigFile>) -> Result<Self, limiter::Error> {
        let is_from_a_file = file.is_some();
        let all = match file {
            Some(file) => LivePolicies::load(file)?,
            None => LivePolicies::fixed(PolicySet::parse(
                Format::Toml,
                include_str!("../limits.toml"),
            )?),
        };
        let of = |operation: Operation| all.get(operation.name());
        let operations: Vec<_> = Operation::ALL.map(Operation::name).into();
        all.require(operations.into_iter().chain(OTHERS))?;
        let operations: Result<Vec<_>, _> = Operation::ALL.into_iter().map(of).collect();
        Ok(Self {
            operations: operations?,
            admin: all.get("admin")?,
            webhook: all.get("webhook")?,
            agent_user: all.get("agent-user")?,
            all,
            is_from_a_file,
        })
    }
}
