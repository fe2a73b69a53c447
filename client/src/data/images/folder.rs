//! A folder of images, with a folder in it for each class, as torchvision's `ImageFolder` reads it.

use std::fs;
use std::path::Path;

use super::super::contract::Breach;

/// Endings of the names of images; other files do not count.
const ENDINGS: [&str; 3] = ["jpeg", "jpg", "png"];

/// Folders in folders are followed so far.
const DEPTH_MAX: usize = 32;

/// Each image's path from `root` and its class, in the order of their names. Files that do not lie in the folder of a
/// class, those whose name does not end as that of an image, and those that are hidden do not count.
pub(super) fn rows(root: &Path) -> Result<Vec<[String; 2]>, Breach> {
    let mut rows = Vec::new();
    for class in entries(root)? {
        if root.join(&class).is_dir() {
            let mut images = Vec::new();
            collect(root, &class, DEPTH_MAX, &mut images)?;
            rows.extend(images.into_iter().map(|image| [image, class.clone()]));
        }
    }
    Ok(rows)
}

/// Appends the images below the folder at `path`, which starts at `root`. Links to folders are not followed.
fn collect(root: &Path, path: &str, depth: usize, images: &mut Vec<String>) -> Result<(), Breach> {
    for name in entries(&root.join(path))? {
        let path = format!("{path}/{name}");
        let kind = fs::symlink_metadata(root.join(&path)).map_err(unreadable)?.file_type();
        if kind.is_dir() && depth > 0 {
            collect(root, &path, depth - 1, images)?;
        } else if !kind.is_dir() && is_image(&name) {
            images.push(path);
        }
    }
    Ok(())
}

/// The names in a folder that are not hidden, in order.
fn entries(folder: &Path) -> Result<Vec<String>, Breach> {
    let names = fs::read_dir(folder).map_err(unreadable)?.map(|entry| {
        let name = entry.map_err(unreadable)?.file_name();
        name.into_string().map_err(|name| Breach::Unreadable(format!("the name {name:?} in it is not UTF-8")))
    });
    let mut names = names.collect::<Result<Vec<_>, _>>()?;
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    Ok(names)
}

fn is_image(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

fn unreadable(reason: std::io::Error) -> Breach {
    Breach::Unreadable(reason.to_string())
}
