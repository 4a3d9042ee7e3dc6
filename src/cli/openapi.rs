//! `carillon openapi`: its arguments. The document is made from the API's routes, which a
//! command does not know.

/// Print the description of the HTTP API (OpenAPI 3.1)
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon openapi > openapi.json
  curl http://127.0.0.1:8080/openapi.json")]
pub struct Args {}
