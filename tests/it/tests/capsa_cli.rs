//! Every behaviour, through our own command line.

use capsa_it::Cli;

capsa_it::every_behaviour!(Cli::Capsa);
