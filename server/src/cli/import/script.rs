//! A TorchScript module as a folder in Sheaf's form. Its parameters are read from its file; what it takes and gives must be
//! said, for a module is a program, and nobody here runs it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sheaf_common::model::foreign::convert::{Conversion, Converted};
use sheaf_common::model::foreign::script::{BadScript, Module, module};
use sheaf_common::model::{
    BadConfig, CONFIG_FILE, MODULE_FILE, ModelConfig, ScriptConfig, ScriptInput, WEIGHTS_FILE,
};
use sheaf_common::params::ParamTensor;
use tempfile::TempDir;

use super::super::screen::transfer_bar;

/// What goes in and out of a TorchScript module.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "TorchScript modules (--kind torchscript)")]
pub struct ScriptArgs {
    /// Values of a row, if the module takes a table.
    #[arg(long, value_name = "N")]
    inputs: Option<u64>,
    /// Side of an image in pixels, if it takes images.
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<u64>,
    /// Mean of each channel that it takes, where 1 is white; one number for grey images [default: 0,0,0]
    #[arg(long, value_delimiter = ',', value_name = "MEAN")]
    mean: Option<Vec<f64>>,
    /// Standard deviation of each channel [default: 1,1,1]
    #[arg(long, value_delimiter = ',', value_name = "STD")]
    std: Option<Vec<f64>>,
    /// Values that it gives: one for each label, or one for a number.
    #[arg(long, value_name = "N")]
    outputs: Option<u64>,
}

/// A TorchScript module cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// It was not said what the module takes and gives.
    #[error(
        "say what the module takes and gives: --outputs, and --inputs for a table or --image-size for images"
    )]
    Undescribed,
    /// Numbers that describe no module.
    #[error("the module cannot be described so: {0}")]
    Config(#[from] BadConfig),
    /// It cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    /// It is no module that could be trained.
    #[error("{0} cannot be imported: {1}")]
    Bad(PathBuf, BadScript),
    /// It is not the one that the folder describes.
    #[error(
        "{0} has other parameters than {CONFIG_FILE} beside it: import the module by itself, with --kind torchscript"
    )]
    Other(PathBuf),
    /// Our disk.
    #[error("cannot convert {0} into the folder for temporary files: {1}")]
    Convert(PathBuf, io::Error),
}

impl ScriptArgs {
    /// Whether none was given.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The description of `module`.
    fn describe(&self, module: &Module) -> Result<ScriptConfig, ScriptError> {
        let input = match (self.inputs, self.image_size) {
            (Some(width), None) if self.mean.is_none() && self.std.is_none() => ScriptInput::Table { width },
            (None, Some(size)) => {
                let of_all =
                    |given: &Option<Vec<f64>>, value| given.clone().unwrap_or_else(|| vec![value; 3]);
                ScriptInput::Image { size, mean: of_all(&self.mean, 0.0), std: of_all(&self.std, 1.0) }
            }
            (Some(_) | None, Some(_) | None) => return Err(ScriptError::Undescribed),
        };
        let outputs = self.outputs.ok_or(ScriptError::Undescribed)?;
        let Module { parameters, has_statistics } = module;
        let parameters = parameters
            .iter()
            .map(|parameter| ParamTensor { name: parameter.name.clone(), shape: parameter.shape.clone() });
        let labels = Vec::new();
        Ok(ScriptConfig {
            input,
            outputs,
            labels,
            has_statistics: *has_statistics,
            parameters: parameters.collect(),
        })
    }
}

/// Makes a folder of the module at `path`; it is gone when it is dropped.
pub(super) fn convert(path: &Path, args: &ScriptArgs) -> Result<TempDir, ScriptError> {
    let module = read(path)?;
    let json = args.describe(&module)?.to_json();
    ModelConfig::parse(&json)?;
    let conversion = Conversion::new(module.parameters.into_iter().map(Converted::from).collect());
    let write = || {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join(CONFIG_FILE), json)?;
        fs::copy(path, dir.path().join(MODULE_FILE))?;
        let bar = transfer_bar("reading parameters");
        bar.set_length(conversion.bytes());
        let mut out = BufWriter::with_capacity(1 << 20, File::create_new(dir.path().join(WEIGHTS_FILE))?);
        conversion.write(&mut File::open(path)?, &mut out, &mut |done| bar.set_position(done))?;
        out.flush()?;
        bar.finish_and_clear();
        Ok(dir)
    };
    write().map_err(|e| ScriptError::Convert(path.to_owned(), e))
}

/// Whether the module in the folder `dir` is the one that `config` describes.
pub(super) fn check(dir: &Path, config: &ScriptConfig) -> Result<(), ScriptError> {
    let path = dir.join(MODULE_FILE);
    let Module { parameters, has_statistics } = read(&path)?;
    let listed = config.parameters.iter().map(|parameter| (&parameter.name, &parameter.shape));
    let same = parameters.iter().map(|parameter| (&parameter.name, &parameter.shape)).eq(listed);
    if same && has_statistics == config.has_statistics { Ok(()) } else { Err(ScriptError::Other(path)) }
}

fn read(path: &Path) -> Result<Module, ScriptError> {
    let unreadable = |e| ScriptError::Read(path.to_owned(), e);
    let mut file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    module(&mut file, bytes).map_err(|e| ScriptError::Bad(path.to_owned(), e))
}
