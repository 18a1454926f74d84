//! Who a process runs as: `user[:group]` looked up in the container's own files.
//!
//! Pure: texts in, ids out. Rules and error texts are Docker's: an empty user is
//! root; a number needs no entry; supplementary groups come from the group file
//! unless a group was named.

use crate::{Error, Result};

/// Ids above this are refused: some programs read them as signed.
const ID_MAX: u32 = i32::MAX as u32;

/// The ids of a process and its home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Finds `user` (and `extra` groups) in the texts of /etc/passwd and /etc/group.
///
/// # Errors
/// `InvalidInput` for a name without an entry or a number that is out of range.
pub(crate) fn identify(
    user: &str,
    extra: &[String],
    passwd: &str,
    group: &str,
) -> Result<Identity> {
    let (user, named_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let account = accounts(passwd)
        .find(|account| account.name == user)
        .or_else(|| accounts(passwd).find(|account| Some(account.uid) == number));
    let mut identity = match (&account, number) {
        (Some(account), _) => Identity {
            uid: account.uid,
            gid: account.gid,
            groups: Vec::new(),
            home: account.home.to_owned(),
        },
        (None, Some(uid)) => Identity { uid, gid: 0, groups: Vec::new(), home: String::new() },
        (None, None) => {
            return Err(Error::invalid(format!(
                "unable to find user {user}: no matching entries in passwd file"
            )));
        }
    };
    if identity.home.is_empty() {
        "/".clone_into(&mut identity.home);
    }
    if let Some(named) = named_group {
        identity.gid = group_id(named, group)?;
    } else if let Some(account) = &account {
        identity.groups = memberships(account.name, group);
    }
    for named in extra {
        identity.groups.push(group_id(named, group)?);
    }
    identity.groups.dedup();
    check_range(&identity)?;
    Ok(identity)
}

fn check_range(identity: &Identity) -> Result<()> {
    let ids = [identity.uid, identity.gid];
    if ids.iter().chain(&identity.groups).all(|id| *id <= ID_MAX) {
        return Ok(());
    }
    Err(Error::invalid("uids and gids must be in range 0-2147483647"))
}

fn memberships(name: &str, group: &str) -> Vec<u32> {
    groups(group)
        .filter(|group| group.members.split(',').any(|member| member.trim() == name))
        .map(|group| group.gid)
        .collect()
}

fn group_id(named: &str, group: &str) -> Result<u32> {
    let found = groups(group).find(|group| group.name == named).map(|group| group.gid);
    found.or_else(|| named.parse().ok()).ok_or_else(|| {
        Error::invalid(format!("unable to find group {named}: no matching entries in group file"))
    })
}

/// Entries of passwd(5); a line that is none is skipped.
fn accounts(text: &str) -> impl Iterator<Item = Account<'_>> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        Some(Account {
            name: fields.first().copied().filter(|name| !name.is_empty())?,
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
            home: fields.get(5).copied().unwrap_or_default(),
        })
    })
}

/// Entries of group(5).
fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        Some(Group {
            name: fields.first().copied().filter(|name| !name.is_empty())?,
            gid: fields.get(2)?.parse().ok()?,
            members: fields.get(3).copied().unwrap_or_default(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\nbad\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,web\nweb:x:34:\nlog:x:4:web\n";

    fn id(user: &str) -> Identity {
        identify(user, &[], PASSWD, GROUP).unwrap()
    }

    #[test]
    fn names_numbers_and_groups_follow_dockers_rules() {
        assert_eq!((id("").uid, id("").groups, id("").home), (0, vec![10], "/root".into()));
        assert_eq!((id("web").uid, id("web").gid, id("web").groups), (33, 34, vec![10, 4]));
        assert_eq!(id("33"), id("web"));
        assert_eq!((id("web:log").gid, id("web:log").groups), (4, vec![]));
        assert_eq!((id("77:88").uid, id("77:88").gid, id("77").home), (77, 88, "/".into()));
        let extra = identify("77", &["wheel".into(), "9".into()], PASSWD, GROUP).unwrap();
        assert_eq!(extra.groups, [10, 9]);
    }

    #[test]
    fn unknown_names_and_numbers_out_of_range_are_refused() {
        for bad in ["nobody", "0:nogroup", "2147483648", "4294967296", "-1"] {
            assert!(identify(bad, &[], PASSWD, GROUP).is_err(), "{bad}");
        }
    }
}
