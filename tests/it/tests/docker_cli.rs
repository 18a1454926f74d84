//! Every behaviour, through the real docker client.

use capsa_it::Cli;

capsa_it::every_behaviour!(Cli::Docker);
