//! What every request shares: users, limits, caches, the model.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{delete, get, post};
use axum::{Router, middleware};
use limiter::ai_cache::scope::PerUser;
use limiter::ai_cache::{AiCache, CacheConfig, Stats};
use limiter::audit::Audit;
use limiter::config::{ConfigFile, FileWatch, Format, LivePolicies, PolicySet};
use limiter::http::{ClientAddress, HeaderStyle, RateLimitLayer, Responder};
use limiter::limiter_core::cache::CacheStore;
use limiter::memory::MemoryConfig;
use limiter::metrics::{HostedPlan, Metrics};
use limiter::switch::SwitchControl;
use limiter::{
    AgentLimits, GroupDecision, Key, Limiter, LivePolicy, Offenders, OutageLog, PaidCall, Policy,
    Switch, Thresholds, Unit,
};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::{ExposeSecret, SecretString};

use crate::audit::{self, Recent};
use crate::http::log;
use crate::http::problem::Problem;
use crate::http::room::Room;
use crate::model::{self, Completion, Model, PROMPT_VERSION};
use crate::routes::operations::Operation;
use crate::routes::webhook::{DEMO_SECRET, PROVIDERS};
use crate::routes::{admin, agent, console, health, me, operations, switch, webhook};
use crate::settings::{DEMO_USERS, Settings, UsersFile};
use crate::users::{User, Users};

pub(crate) struct App {
    pub(crate) users: Users,
    pub(crate) limiter: Limiter,
    /// What stands before every request that is not the operator's.
    address: RateLimitLayer,
    has_proxies: bool,
    /// Who asks, where nobody has said so.
    pub(crate) clients: ClientAddress,
    /// Of the bodies of users.
    pub(crate) room: Room,
    /// Of the bodies of whoever is not known yet, so that these keep no user's out.
    pub(crate) strangers: Room,
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
    /// By provider; a provider without one sends nothing that is taken.
    pub(crate) webhook_secrets: HashMap<&'static str, SecretString>,
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
    model_calls: LivePolicy,
    model_tokens: LivePolicy,
    address: LivePolicy,
    is_from_a_file: bool,
}

/// One limit of a user.
pub(crate) struct Limit {
    pub(crate) name: &'static str,
    pub(crate) policy: Policy,
    pub(crate) key: Key,
}

/// The limits of what asks the model: calls of a user, tokens of a tenant.
const CALLS: &str = "model-calls";
const TOKENS: &str = "model-tokens";

/// The policies that are no operation's.
const OTHERS: [&str; 8] = [
    "address",
    CALLS,
    TOKENS,
    "admin",
    "webhook",
    "agent-turn",
    "agent-session",
    "agent-user",
];

/// How many addresses are counted at once; those beyond are let through.
const ADDRESSES: usize = 100_000;

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
    /// Another model, of another provider, or another prompt is another question.
    fn new(store: &Arc<dyn CacheStore>, model: &Model) -> Self {
        let (prompt, model) = (PROMPT_VERSION.as_str(), model.identity());
        Self {
            company_research: AiCache::new(
                store.clone(),
                CacheConfig::company_research(prompt).with_model(&model),
            ),
            job_extraction: AiCache::new(
                store.clone(),
                CacheConfig::job_extraction(prompt).with_model(&model),
            ),
            resume_analysis: AiCache::new(
                store.clone(),
                CacheConfig::resume_analysis(prompt).with_model(&model),
            ),
            interview_prep: AiCache::new(
                store.clone(),
                CacheConfig::interview_prep(prompt).with_model(&model),
            ),
        }
    }

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
        let observed = || {
            limiter::Builder::new()
                .trace()
                .observe(Metrics::new())
                .observe(offenders.clone())
        };
        let addresses = MemoryConfig::default().with_keys(ADDRESSES).map_err(said)?;
        let addresses = observed().memory(&addresses).limiter;
        let address = RateLimitLayer::new(addresses, policies.address.clone())
            .client(settings.client.clone())
            .operation("requests from this address")
            .refuse_with(|refusal| {
                log::denied_by("address");
                refusal.to_response()
            })
            // Who is allowed is told of the limit that is nearer to the work.
            .responder(Responder::default().headers(HeaderStyle::default().legacy(false).ietf(None)));
        let backends = observed()
            // Not of addresses: a flood would be most of the trail.
            .observe(audit.clone())
            .observe(thresholds.map_err(said)?)
            .memory_config(memory)
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
        let caches = Caches::new(&backends.cache, &model);
        let (users, is_demo) = users(&settings.users)?;
        let webhook_secrets = webhook_secrets(settings.webhook_secrets, is_demo)?;
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
            webhook_secrets,
            address,
            has_proxies: settings.has_proxies,
            clients: settings.client,
            room: Room::default(),
            strangers: Room::default(),
        }))
    }

    /// The user of a request's bearer key, whom its line in the log names from here on.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<&User, Problem> {
        let user = self.users.authenticate(headers)?;
        log::caller(&self.audit.hash(&user.id));
        Ok(user)
    }

    /// As [`authenticate`](Self::authenticate), and the user must be an admin.
    pub(crate) fn admin(&self, headers: &HeaderMap) -> Result<&User, Problem> {
        let user = self.authenticate(headers)?;
        if user.admin {
            return Ok(user);
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "this API key is not an admin's",
        ))
    }

    /// What a user is limited by: each operation, calls of the model, and the tokens of the tenant. Calls and tokens share a slot
    /// of a Redis Cluster, so that they are one step.
    pub(crate) fn limits_of(&self, user: &User) -> Vec<Limit> {
        let mut limits: Vec<Limit> = Operation::ALL
            .into_iter()
            .map(|operation| {
                let key = operation.key(user);
                let policy = operation.policy(self).of(&key);
                let name = operation.name();
                Limit { name, policy, key }
            })
            .collect();
        let [calls, tokens] = [CALLS, TOKENS].map(|name| {
            let key = Key::builder().segment("ratelimit").hash_tag(&user.tenant);
            key.segment(name)
        });
        let (calls, tokens) = (calls.segment(&user.id).build(), tokens.build());
        for (name, live, key) in [
            (CALLS, &self.policies.model_calls, calls),
            (TOKENS, &self.policies.model_tokens, tokens),
        ] {
            let policy = live.of(&key);
            limits.push(Limit { name, policy, key });
        }
        limits
    }

    /// An operation of a user: its own limit counts everything, and those of the model only what asks it.
    pub(crate) fn paid_call(&self, user: &User, operation: Operation, estimate: u64) -> PaidCall {
        let call = PaidCall::new(self.limiter.clone())
            .estimate(estimate)
            // Longer than the model's own time: that says better what was wrong.
            .within(2 * model::TIMEOUT);
        let limits = self.limits_of(user);
        limits
            .iter()
            .fold(call, |call, Limit { name, policy, key }| match *name {
                CALLS | TOKENS => call.paid(policy, key),
                name if name == operation.name() => call.counted(policy, key),
                _ => call,
            })
    }

    /// The answer to a request that a limit refuses.
    pub(crate) fn refused(&self, decision: &GroupDecision, operation: &str) -> Response {
        if let Some(binding) = decision.binding() {
            log::denied_by(binding.policy.name());
        }
        let refusal = self.responder.refusal(decision, operation);
        // One that was not allowed always has a response.
        refusal.unwrap_or_default()
    }

    /// The routes.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        let limited = Router::new()
            .route("/api/me", get(me::show))
            .route("/api/{operation}", post(operations::run))
            .route("/api/admin/{endpoint}", get(admin::show))
            .route("/api/admin/usage/{user}/{operation}", delete(admin::reset))
            .route(
                "/api/admin/switch",
                get(switch::show).put(switch::throw).delete(switch::release),
            )
            .route("/webhooks/{provider}", post(webhook::receive))
            .route(
                "/agent/{session}/turns/{turn}/tools/{tool}",
                post(agent::use_tool),
            )
            .layer(self.address.clone());
        let limited = match self.has_proxies {
            true => limited,
            false => limited.layer(middleware::from_fn(log::unheeded_proxy)),
        };
        Router::new()
            .route("/", get(console::page))
            .route("/console.css", get(console::style))
            .route("/console.js", get(console::script))
            .route("/health", get(health::health))
            .route("/metrics", get(health::metrics))
            .merge(limited)
            .fallback(|| async { Problem::not_found("there is nothing here; GET / says what is") })
            .method_not_allowed_fallback(|| async {
                Problem::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "this path takes another method; GET / says which",
                )
            })
            .layer(middleware::from_fn(log::requests))
            .with_state(self)
    }
}

/// Who may call, and whether everybody knows a key.
fn users(file: &UsersFile) -> Result<(Users, bool), String> {
    let users = Users::from_json(&file.text).map_err(|error| match &file.path {
        Some(path) => format!("USERS_FILE names {path}, which cannot be used: {error}"),
        None => error,
    })?;
    let is_demo = users.share_a_key_with(&Users::from_json(DEMO_USERS)?);
    if is_demo {
        tracing::warn!(
            "demo users are active: everybody knows their keys, an admin's too; set USERS_FILE to a file with keys of your own"
        );
    }
    Ok((users, is_demo))
}

/// Under what each provider signs. The demo's secret, which everybody knows, is taken where the demo's users are, and only there.
fn webhook_secrets(
    set: Vec<(&'static str, SecretString)>,
    is_demo: bool,
) -> Result<HashMap<&'static str, SecretString>, String> {
    let is_demos = |(_, secret): &&(&str, SecretString)| secret.expose_secret() == DEMO_SECRET;
    if let Some((provider, _)) = set.iter().find(is_demos).filter(|_| !is_demo) {
        let variable = provider.to_ascii_uppercase();
        return Err(format!(
            "WEBHOOK_SECRET_{variable} is the demo's secret, which everybody knows; set one of your own"
        ));
    }
    let mut secrets = HashMap::new();
    if is_demo {
        secrets.extend(PROVIDERS.map(|provider| (provider, DEMO_SECRET.into())));
    }
    secrets.extend(set);
    Ok(secrets)
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
        for (name, unit) in [(CALLS, Unit::Requests), (TOKENS, Unit::Tokens)] {
            if all.get(name)?.current().unit() != unit {
                let unit = unit.as_str();
                return Err(all.unusable(&format!(
                    "policy {name} has to count {unit}; give it unit = \"{unit}\""
                )));
            }
        }
        let operations: Result<Vec<_>, _> = Operation::ALL.into_iter().map(of).collect();
        Ok(Self {
            operations: operations?,
            admin: all.get("admin")?,
            webhook: all.get("webhook")?,
            agent_user: all.get("agent-user")?,
            model_calls: all.get(CALLS)?,
            model_tokens: all.get(TOKENS)?,
            address: all.get("address")?,
            all,
            is_from_a_file,
        })
    }
}
