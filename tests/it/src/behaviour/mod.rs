//! What both command lines do alike, by area. Each function is one test; the list of
//! all of them is [`crate::every_behaviour`].

#![allow(missing_docs, reason = "the name of a behaviour says what it is")]

pub mod exec;
pub mod files;
pub mod images;
pub mod lifecycle;
pub mod limits;
pub mod network;
pub mod refusals;
pub mod run;
pub mod volumes;

/// Makes a test of every behaviour, each with a daemon of its own.
#[macro_export]
macro_rules! every_behaviour {
    ($cli:expr) => {
        $crate::every_behaviour! { $cli;
            run: echo_is_heard, exit_codes_are_the_process_s, output_streams_stay_apart,
                stdin_reaches_the_process, a_terminal_has_its_size_and_the_exit_code,
                logs_follow_to_the_end, logs_can_be_cut, attach_sees_what_comes,
                environment_user_and_directory_are_as_asked, entrypoint_and_command_combine,
                an_auto_removed_container_is_gone;
            lifecycle: stop_asks_then_kills, kill_sends_the_signal, restart_starts_anew,
                wait_tells_the_exit_code, pause_freezes, a_renamed_container_answers_to_both,
                ps_shows_what_runs, a_running_container_is_not_removed_by_accident,
                one_that_is_just_starting_is_removed_by_force,
                a_failing_container_is_restarted_as_often_as_asked, events_tell_a_life,
                inspect_says_what_was_asked, an_id_prefix_is_enough, prune_takes_what_has_ended;
            exec: exec_runs_beside, exec_has_stdin, exec_has_a_terminal, exec_codes,
                exec_takes_user_directory_and_environment;
            network: a_tcp_port_is_published, a_udp_port_is_published,
                containers_find_each_other_by_name, neighbours_on_the_default_bridge_have_addresses_and_names,
                hostname_hosts_and_resolv_conf, the_name_server_asked_for_is_asked, no_network_is_only_loopback,
                the_host_s_network_is_the_host_s, a_taken_port_names_its_holder,
                a_network_in_use_is_kept,
                a_container_shares_another_s_network, the_world_outside_sees_the_host;
            volumes: a_named_volume_outlives_its_container, an_anonymous_volume_goes_with_rm_v,
                a_bind_mount_is_the_host_s_directory, read_only_is_read_only,
                an_image_s_files_fill_a_new_volume, a_volume_in_use_is_kept,
                volumes_from_another_container, a_tmpfs_is_memory, a_read_only_root;
            images: a_loaded_image_keeps_its_id, save_and_load_round_trip, commit_keeps_changes,
                tags_come_and_go, history_and_inspect_tell_the_layers,
                export_and_import_a_file_system, layers_stack, an_image_in_use_is_kept;
            files: cp_out_and_in, cp_streams_tar, diff_tells_what_changed, cp_stays_inside;
            limits: memory_and_pids_are_limited, cpu_is_limited, running_out_of_memory_is_told,
                update_changes_limits, ulimits_are_set, top_lists_processes;
            refusals: a_taken_name_is_told, a_missing_image_is_told, a_missing_container_is_told,
                a_missing_bind_source_is_told, a_bad_option_is_told, nothing_runs_in_a_stopped_one,
                a_missing_working_directory_is_made;
        }
    };
    ($cli:expr; $($area:ident: $($name:ident),+;)+) => {
        $(mod $area {
            use super::*;
            $(#[test]
            fn $name() {
                $crate::behaviour::$area::$name(&$crate::Daemon::start($cli));
            })+
        })+
    };
}
