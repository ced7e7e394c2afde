//! Names of the metrics that the data layer writes about itself.

/// Counter: fetches of a page that failed. Label `source_type`. The reference's name.
pub const POLL_ERRORS: &str = "llm_d_epp_datalayer_poll_errors_total";
/// Counter: pages that lacked what an extractor wants. Labels `source_type`, `extractor_type`. The reference's name.
pub const EXTRACT_ERRORS: &str = "llm_d_epp_datalayer_extract_errors_total";
/// Counter: scrapes by outcome. Labels `source_type`, `outcome` (`ok`, or how it failed).
pub const SCRAPES: &str = "pointsman_scrapes_total";
/// Histogram: seconds from the start of a fetch to the published numbers, of those that succeeded. Label `source_type`.
pub const SCRAPE_SECONDS: &str = "pointsman_scrape_duration_seconds";
/// Gauge: 1 while a source of an endpoint fails. Labels `source_type`, `endpoint`.
pub const SCRAPE_FAILING: &str = "pointsman_scrape_failing";
/// Counter: new processes seen behind endpoints by their pages. Label `reason`.
pub const RESTARTS: &str = "pointsman_endpoint_restarts_total";
