//! The four caches of the job-search assistant (B4). Their item counts bound what each process keeps
//! in front of the store. Each takes the version of its prompt: an answer to an older prompt is another question's.

use std::time::Duration;

use crate::config::CacheConfig;
use crate::scope::{PerUser, Shared};

const HOUR: Duration = Duration::from_secs(3_600);
const SIX_HOURS: Duration = Duration::from_secs(6 * 3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

impl CacheConfig<Shared> {
    /// Company research: `companyResearch`, 24 hours, 50 answers.
    pub fn company_research(prompt_version: &str) -> Self {
        Self::preset("companyResearch", DAY, Shared)
            .with_l1_capacity(50)
            .with_prompt_version(prompt_version)
    }

    /// Job extraction: `jobExtraction`, 24 hours, 100 answers.
    pub fn job_extraction(prompt_version: &str) -> Self {
        Self::preset("jobExtraction", DAY, Shared)
            .with_l1_capacity(100)
            .with_prompt_version(prompt_version)
    }
}

impl CacheConfig<PerUser> {
    /// Resume analysis: `resumeAnalysis`, 1 hour, 100 answers, each user's apart.
    pub fn resume_analysis(prompt_version: &str) -> Self {
        Self::preset("resumeAnalysis", HOUR, PerUser)
            .with_l1_capacity(100)
            .with_prompt_version(prompt_version)
    }

    /// Interview preparation: `interviewPrep`, 6 hours, 50 answers, each user's apart.
    pub fn interview_prep(prompt_version: &str) -> Self {
        Self::preset("interviewPrep", SIX_HOURS, PerUser)
            .with_l1_capacity(50)
            .with_prompt_version(prompt_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    /// B4, and the rules that a configuration of one's own must pass.
    #[test]
    fn presets_are_as_required() {
        let hours = |settings: &Settings| settings.ttl.as_secs() / 3_600;
        let company = CacheConfig::company_research("1").settings;
        let resume = CacheConfig::resume_analysis("1").settings;
        let job = CacheConfig::job_extraction("1").settings;
        let interview = CacheConfig::interview_prep("1").settings;
        for (settings, operation, ttl, capacity) in [
            (company, "companyResearch", 24, 50),
            (resume, "resumeAnalysis", 1, 100),
            (job, "jobExtraction", 24, 100),
            (interview, "interviewPrep", 6, 50),
        ] {
            assert_eq!(&*settings.operation, operation);
            assert_eq!((hours(&settings), settings.l1_capacity), (ttl, capacity));
            assert!(CacheConfig::shared(operation, settings.ttl).is_ok());
        }
    }
}
