//! Metadata values: one Rust type for each value type that a file can hold.

macro_rules! values {
    ($($variant:ident($type:ty) = $id:literal, $name:literal;)*) => {
        /// The value of a metadata entry.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Value {
            $(
                #[doc = concat!("A value of type ", $name, ".")]
                $variant($type),
            )*
            /// Several values of one type.
            Array(Array),
        }

        /// An array among the metadata; an array of arrays can't be expressed.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Array {
            $(
                #[doc = concat!("Elements of type ", $name, ".")]
                $variant(Vec<$type>),
            )*
        }

        impl Value {
            /// The type, in words for messages and listings: `"u32"`, `"array of string"`.
            pub fn type_name(&self) -> &'static str {
                match self {
                    $(Value::$variant(_) => $name,)*
                    Value::Array(array) => match array {
                        $(Array::$variant(_) => concat!("array of ", $name),)*
                    },
                }
            }

            /// The number that stands for the type in a file.
            pub(crate) fn type_id(&self) -> u32 {
                match self {
                    $(Value::$variant(_) => $id,)*
                    Value::Array(_) => ARRAY_ID,
                }
            }
        }

        impl Array {
            /// The number that stands for the element type in a file.
            pub(crate) fn element_type_id(&self) -> u32 {
                match self {
                    $(Array::$variant(_) => $id,)*
                }
            }

            /// The number of elements.
            pub fn len(&self) -> usize {
                match self {
                    $(Array::$variant(elements) => elements.len(),)*
                }
            }

            /// Whether there are no elements.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        $(
            impl From<$type> for Value {
                fn from(value: $type) -> Value {
                    Value::$variant(value)
                }
            }

            impl From<Vec<$type>> for Value {
                fn from(elements: Vec<$type>) -> Value {
                    Value::Array(Array::$variant(elements))
                }
            }
        )*
    };
}

/// The value type of an array in a file.
pub(crate) const ARRAY_ID: u32 = 9;

values! {
    U8(u8) = 0, "u8";
    I8(i8) = 1, "i8";
    U16(u16) = 2, "u16";
    I16(i16) = 3, "i16";
    U32(u32) = 4, "u32";
    I32(i32) = 5, "i32";
    F32(f32) = 6, "f32";
    Bool(bool) = 7, "bool";
    String(String) = 8, "string";
    U64(u64) = 10, "u64";
    I64(i64) = 11, "i64";
    F64(f64) = 12, "f64";
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::String(value.to_owned())
    }
}

impl From<Array> for Value {
    fn from(array: Array) -> Value {
        Value::Array(array)
    }
}
